"""What went wrong, in the words of the table: pydantic's errors as sentences for its users."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from pydantic_core import ErrorDetails

from airflow_ephemeral_ec2.config_table.cells import Cell
from airflow_ephemeral_ec2.config_table.secret_words import is_secret_value
from airflow_ephemeral_ec2.exceptions import Problem, nearest
from airflow_ephemeral_ec2.model.spec import FORMS, INSTANCE_TYPE

_PRIVATE = ("env", "secrets")
"""Settings whose values are never shown: they may be secrets in the wrong place."""
_SIZES = (
    *("nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge"),
    *("12xlarge", "16xlarge", "24xlarge", "32xlarge", "48xlarge", "metal"),
)
_WHOLE, _TRUTH = "write a whole number", "write true or false"
_FIXED = {
    "string_type": "write text",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": _WHOLE,
    "finite_number": _WHOLE,
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "too_short": "needs at least one",
    "none_required": "reserved for later; leave it out",
}
"""Kind of pydantic's error -> what to write."""


def quote(text: str) -> str:
    """Show text as a user would write it, shortened, and never a secret."""
    if is_secret_value(text):
        return "(hidden)"
    short = text if len(text) <= 60 else text[:57] + "..."
    return json.dumps(short, ensure_ascii=False)


def describe(value: object, text: str = "") -> str:
    """Show any value."""
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if text:
        return text if len(text) <= 60 else text[:57] + "..."
    return json.dumps(value) if isinstance(value, bool) else str(value)[:60]


def unknown_word(found: str, known: Sequence[str], kind: str) -> str:
    """``no such job; did you mean "claims"?``, or all known words when none is near."""
    start = f"no such {kind}" if kind != "key" else "unknown key"
    near = nearest(found, list(known))
    if near:
        return f"{start}; did you mean {quote(near)}?"
    return f"{start}; known: {', '.join(known)}" if known else f"{start}; none is known"


def explain(error: ErrorDetails, cell: Cell) -> Problem:
    """Turn one error of a layer's validation into a problem at the cell that caused it."""
    location = error["loc"]
    setting = str(location[0])
    item = location[1] if len(location) > 1 else None
    message = _sentence(error, setting, cell, item)
    return cell.problem(message, item)


def _sentence(error: ErrorDetails, setting: str, cell: Cell, item: object) -> str:
    found = error["input"]
    if error["loc"][-1] == "[key]":
        return f"{quote(str(item))}: {_cause(error, str(item))}"
    if error["type"] == "value_error" and found is not None:
        return str(error.get("ctx", {}).get("error", error["msg"]))  # it names the value itself
    cause = _cause(error, found)
    if setting in _PRIVATE:
        empty = 'empty; write "" for no text' if found is None else "not text; put it in quotes"
        return empty if error["type"] == "string_type" else cause
    shown = describe(found, cell.text if item is None or isinstance(item, str) else "")
    if error["type"] == "string_type" and not isinstance(found, dict | list | None):
        return f"{shown}: not text; write {json.dumps(cell.text or str(found))}"
    return f"{shown}: {cause}"


def _cause(error: ErrorDetails, found: object) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == "tuple_type":
        return _as_list(found)
    if kind in ("enum", "literal_error"):
        return _one_of(str(context["expected"]), str(found))
    if found is None:
        return "write a value, or leave the key out"
    return _limit(kind, context, str(found)) or error["msg"]


def _limit(kind: str, context: Mapping[str, object], found: str) -> str | None:
    match kind:
        case "string_pattern_mismatch":
            return _form(str(context["pattern"]), found)
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {_bound(context['le'])}"
        case "string_too_long":
            return f"at most {context['max_length']} characters"
        case _:
            return None


def _bound(limit: object) -> str:
    return "30d" if limit == 2_592_000 else str(limit)


def _form(pattern: str, found: str) -> str:
    words = FORMS.get(pattern, f"must match {pattern}")
    near = near_instance_type(found) if pattern == INSTANCE_TYPE else None
    return f"{words}; did you mean {quote(near)}?" if near else words


def near_instance_type(found: str) -> str | None:
    """Mend the size of an instance type: ``m7i.lagre`` -> ``m7i.large``."""
    family, dot, size = found.lower().partition(".")
    near = nearest(size, list(_SIZES))
    mended = f"{family}.{near}"
    return mended if dot and near and re.match(INSTANCE_TYPE, mended) else None


def _as_list(found: object) -> str:
    if not isinstance(found, str):
        return (
            "write a list"
            if isinstance(found, dict) or found is None
            else f"write a list: [{found}]"
        )
    if is_secret_value(found):
        return "write a list"
    try:
        words = shlex.split(found)
    except ValueError:
        words = found.split()
    text = ", ".join(
        word if re.fullmatch(r"[\w./=-]+", word) else json.dumps(word) for word in words
    )
    return f"write a list: [{text}]" if len(text) <= 100 else "write a list"


def _one_of(expected: str, found: str) -> str:
    allowed = re.findall(r"'([^']*)'", expected)
    near = nearest(found.lower(), allowed)
    return f"must be one of {', '.join(allowed)}" + (
        f"; did you mean {quote(near)}?" if near else ""
    )
