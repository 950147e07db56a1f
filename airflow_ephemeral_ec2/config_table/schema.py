"""
The table's JSON schema and its page in the docs, both made from the models.

``python -m airflow_ephemeral_ec2.config_table.schema --write docs`` renews both;
``--check docs`` exits 1 when they are stale.
"""

import argparse
import ast
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from airflow_ephemeral_ec2.config_table.cells import PAYER_SETTINGS, SETTINGS
from airflow_ephemeral_ec2.model.duration import compact_duration
from airflow_ephemeral_ec2.model.spec import NAME, JobSpec, Limits

PAGE, SCHEMA = "config-table.md", "config-table.schema.json"
BEGIN, END = "<!-- generated: settings -->", "<!-- end of generated part -->"
_DURATIONS = ("max_runtime", "boot_timeout", "max_wait", "stop_grace")
_PLAIN_FORMS = {"object": "map of text to text", "boolean": "`true`, `false`", "null": "nothing"}
_EMPTY_OR_OBJECT = ["object", "null"]


def json_schema() -> dict[str, Any]:
    """Describe the YAML form, for editors and validators."""
    settings = _describe(JobSpec)
    definitions = {
        **JobSpec.model_json_schema().get("$defs", {}),
        "settings": _object({name: _optional(name, settings[name]) for name in SETTINGS}),
    }
    job = _object({name: _setting(name) for name in SETTINGS if name not in PAYER_SETTINGS})
    definitions["job"] = job
    definitions["payer"] = _object(
        {name: _setting(name) for name in SETTINGS} | {"jobs": _named({"$ref": "#/$defs/job"})}
    )
    aws = {name: _setting(name) for name in ("aws_conn_id", "region", "tags")}
    top = {
        "version": {"const": 1},
        "aws": _object(aws),
        "defaults": {"$ref": "#/$defs/settings"},
        "limits": _object(_describe(Limits)),
        "jobs": _named({"$ref": "#/$defs/job"}),
        "payers": _named({"$ref": "#/$defs/payer"}),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Config table of airflow_ephemeral_ec2",
        "type": "object",
        "properties": top,
        "required": ["version", "payers"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def docs_table() -> str:
    """List every setting with its form, its default and its meaning, as a Markdown table."""
    settings = _describe(JobSpec)
    lines = ["| setting | form | default | meaning |", "|---|---|---|---|"]
    for name in SETTINGS:
        field = JobSpec.model_fields[name]
        default = "required" if field.is_required() else _default(name, field.get_default())
        text = settings[name].get("description", "").replace("``", "`").replace("|", r"\|")
        meaning = " ".join(text.split())
        lines.append(f"| `{name}` | {_form(settings[name])} | {default} | {meaning} |")
    lines += ["", "| limit | form | meaning |", "|---|---|---|"]
    for name, schema in _describe(Limits).items():
        meaning = " ".join(str(schema["description"]).split())
        lines.append(f"| `limits.{name}` | {_form(schema)} | {meaning} |")
    return "\n".join(lines)


def _describe(model: type[BaseModel]) -> dict[str, Any]:
    """
    Return a model's properties, each with the text below its field as ``description``.

    Pydantic can read these texts by itself (``use_attribute_docstrings``), and does it at each
    import: half a second of CPU in every task and every parsing of a DAG file.
    """
    found: dict[str, Any] = model.model_json_schema()["properties"]
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    for field, text in itertools.pairwise(getattr(definition, "body", ())):
        if not isinstance(field, ast.AnnAssign) or not isinstance(text, ast.Expr):
            continue
        told = ast.literal_eval(text.value)
        found[ast.unparse(field.target)]["description"] = inspect.cleandoc(told)
    return found


def render_page(page: str) -> str:
    """Put the tables between the two marks of the page."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{docs_table()}\n\n{END}{after}"


def render_schema() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def find_stale(folder: Path) -> list[str]:
    """Name the generated files that differ from what the models say now."""
    page = (folder / PAGE).read_text(encoding="utf-8")
    stale = [PAGE] if render_page(page) != page else []
    schema = folder / SCHEMA
    if not schema.is_file() or schema.read_text(encoding="utf-8") != render_schema():
        stale.append(SCHEMA)
    return stale


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Renew or check the generated docs of the table.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="DOCS")
    action.add_argument("--check", type=Path, metavar="DOCS")
    options = parser.parse_args(arguments)
    if options.check:
        stale = find_stale(options.check)
        sys.stderr.writelines(f"{name} is stale: run with --write\n" for name in stale)
        return 1 if stale else 0
    page = options.write / PAGE
    page.write_text(render_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    (options.write / SCHEMA).write_text(render_schema(), encoding="utf-8")
    return 0


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": _EMPTY_OR_OBJECT, "properties": properties, "additionalProperties": False}


def _named(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": _EMPTY_OR_OBJECT,
        "patternProperties": {NAME: value},
        "additionalProperties": False,
    }


def _setting(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/settings/properties/{name}"}


def _optional(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Show defaults as users write them, and let maps of ``env:`` alone be empty."""
    shown = {key: value for key, value in schema.items() if key != "title"}
    if name in _DURATIONS and isinstance(shown.get("default"), int):
        shown["default"] = compact_duration(shown["default"])
    if shown.get("type") == "object":
        shown["type"] = _EMPTY_OR_OBJECT
    return shown


def _default(name: str, value: object) -> str:
    if name in _DURATIONS and isinstance(value, int):
        return f"`{compact_duration(value)}`"
    if value is None or value in ((), {}):
        return "empty"
    if isinstance(value, tuple):
        return f"`[{', '.join(str(item) for item in value)}]`"
    return f"`{json.dumps(value)}`" if isinstance(value, bool) else f"`{value}`"


def _form(schema: dict[str, Any]) -> str:
    """Name the form of a setting in two or three words."""
    choices = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    if choices:
        return _form(choices[0])
    if "$ref" in schema:
        definition = JobSpec.model_json_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        return _form(definition)
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if schema.get("type") == "integer":
        return _bounds(schema)
    if schema.get("type") == "array":
        return f"list of {_item(schema.get('items', {}))}"
    text = "duration, like `1h30m`" if "examples" in schema else "text"
    return _PLAIN_FORMS.get(str(schema.get("type")), text)


def _item(schema: dict[str, Any]) -> str:
    return f"numbers {_bounds(schema)}" if schema.get("type") == "integer" else "text"


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"{low:,} to {high:,}" if high is not None else f"{low:,} or more"


if __name__ == "__main__":
    sys.exit(main())
