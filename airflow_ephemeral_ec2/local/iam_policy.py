"""
May this principal do that? IAM's evaluation for identity policies, as a pure function.

Source: IAM User Guide, "Policy evaluation logic" and "IAM policy elements: variables". Known here:
Allow and Deny, (Not)Action, (Not)Resource, wildcards, policy variables and the condition operators
below. An unknown operator or an unknown variable never allows and always denies: fail closed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate

Document = Mapping[str, object]
Context = Mapping[str, str]

_VARIABLE = re.compile(r"\$\{([^}]+)\}")


def is_allowed(
    documents: Iterable[Document], action: str, resources: tuple[str, ...], context: Context
) -> bool:
    """
    Decide for one action on any of the names that one resource goes by.

    ``action`` is like ``s3:GetObject``; ``context`` holds condition keys and policy variables,
    for example ``ec2:SourceInstanceARN``. An explicit Deny wins.
    """
    allowed = False
    for document in documents:
        for statement in _as_list(document.get("Statement")):
            if not isinstance(statement, Mapping):
                continue
            if not _concerns(statement, action, resources, context):
                continue
            if statement.get("Effect") == "Deny":
                return False
            allowed = allowed or statement.get("Effect") == "Allow"
    return allowed


def _concerns(
    statement: Document, action: str, resources: tuple[str, ...], context: Context
) -> bool:
    return (
        _action_matches(statement, action)
        and _resource_matches(statement, resources, context)
        and _conditions_hold(statement, context)
    )


def _action_matches(statement: Document, action: str) -> bool:
    if "NotAction" in statement:
        return not _any_match(statement["NotAction"], action.lower(), str.lower)
    return _any_match(statement.get("Action"), action.lower(), str.lower)


def _resource_matches(statement: Document, resources: tuple[str, ...], context: Context) -> bool:
    negated = "NotResource" in statement
    patterns = _as_list(statement.get("NotResource" if negated else "Resource"))
    filled = [text for text in (fill_variables(str(p), context) for p in patterns) if text]
    hit = any(_like(pattern, name) for pattern in filled for name in resources)
    return hit != negated


def fill_variables(pattern: str, context: Context) -> str | None:
    """Put values into ``${...}``; None when one is unknown, as IAM then matches nothing."""
    names = _VARIABLE.findall(pattern)
    if any(name not in context and name not in {"*", "?", "$"} for name in names):
        return None

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        return f"[{name}]" if name in {"*", "?"} else context.get(name, name)

    return _VARIABLE.sub(value, pattern)


def _conditions_hold(statement: Document, context: Context) -> bool:
    conditions = statement.get("Condition") or {}
    if not isinstance(conditions, Mapping):
        return False
    denies = statement.get("Effect") == "Deny"
    for operator, keys in conditions.items():
        for key, wanted in keys.items():
            holds = _condition_holds(str(operator), str(key), wanted, context)
            if holds is None:
                return denies
            if not holds:
                return False
    return True


def _condition_holds(operator: str, key: str, wanted: object, context: Context) -> bool | None:
    values = [fill_variables(str(value), context) for value in _as_list(wanted)]
    known = [value for value in values if value is not None]
    actual = context.get(key)
    if operator == "Null":
        return (actual is None) == (str(known[0]).lower() == "true")
    if operator.endswith("IfExists"):
        if actual is None:
            return True
        operator = operator.removesuffix("IfExists")
    test = _OPERATORS.get(operator)
    return test(actual, known) if test else None


def _equals(actual: str | None, wanted: list[str]) -> bool:
    return actual in wanted


def _matches(actual: str | None, wanted: list[str]) -> bool:
    return actual is not None and any(_like(pattern, actual) for pattern in wanted)


_OPERATORS: dict[str, Callable[[str | None, list[str]], bool]] = {
    "StringEquals": _equals,
    "Bool": _equals,
    "ArnEquals": _matches,
    "StringLike": _matches,
    "ArnLike": _matches,
    "StringNotEquals": lambda actual, wanted: not _equals(actual, wanted),
    "StringNotLike": lambda actual, wanted: not _matches(actual, wanted),
    "ArnNotLike": lambda actual, wanted: not _matches(actual, wanted),
}


def _any_match(patterns: object, text: str, prepare: Callable[[str], str]) -> bool:
    return any(_like(prepare(str(pattern)), text) for pattern in _as_list(patterns))


def _like(pattern: str, text: str) -> bool:
    # IAM knows only * and ?; fnmatch's sets must stay literal, except the escapes made above.
    plain = re.sub(r"\[(?![*?]\])", "[[]", pattern)
    return re.match(translate(plain), text) is not None


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
