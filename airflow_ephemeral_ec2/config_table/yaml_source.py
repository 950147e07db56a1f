"""YAML text -> layers of cells: line numbers, duplicate keys and unknown keys are found here."""

from collections.abc import Collection
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from airflow_ephemeral_ec2.config_table.cells import (
    LIMIT_MAPS,
    MAP_SETTINGS,
    PAYER_SETTINGS,
    SETTINGS,
    Cell,
    Layer,
    PayerSource,
    TableSource,
)
from airflow_ephemeral_ec2.config_table.launch_shape import refuse_loosening
from airflow_ephemeral_ec2.config_table.messages import describe, quote, unknown_word
from airflow_ephemeral_ec2.exceptions import Problem, nearest
from airflow_ephemeral_ec2.model.spec import Limits

TABLE_KEYS = ("version", "aws", "defaults", "limits", "jobs", "payers")
COMPANION_KEYS = ("version", "aws", "limits")
AWS_KEYS = ("aws_conn_id", "region", "tags")
LIMIT_KEYS = tuple(Limits.model_fields)
JOB_KEYS = tuple(key for key in SETTINGS if key not in PAYER_SETTINGS)
MAX_DEPTH = 30
"""The table needs six; PyYAML's C parser crashes the process on tens of thousands."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_PLAIN = ("str", "timestamp", "value", "merge")


def read_yaml(text: str, path: str) -> TableSource:
    reader = _Reader(path)
    root = reader.compose(text)
    top = reader.entries(root, "", TABLE_KEYS) if root is not None else {}
    if root is not None:
        reader.check_version(top, required=True)
    jobs = {
        name: reader.settings(node, f"jobs.{name}", JOB_KEYS, line)
        for name, (line, node) in reader.section(top, "jobs").items()
    }
    payers = {
        name: reader.payer(name, line, node, jobs)
        for name, (line, node) in reader.section(top, "payers").items()
    }
    if not reader.problems and not payers:
        line = top["payers"][0] if "payers" in top else 1
        reader.report(line, "payers", 'empty: a table has at least one payer, like "acme: {}"')
    elif not reader.problems and not any(payer.jobs for payer in payers.values()):
        line = top["jobs"][0] if "jobs" in top else 1
        reader.report(line, "jobs", "empty: a table has at least one job")
    return TableSource(
        path=path,
        aws=reader.layer(top, "aws", AWS_KEYS),
        defaults=reader.layer(top, "defaults", SETTINGS),
        jobs=jobs,
        payers=payers,
        limits=reader.layer(top, "limits", LIMIT_KEYS),
        defaults_name="defaults",
        problems=tuple(reader.problems),
    )


def read_companion(text: str, path: str) -> tuple[Layer, Layer, tuple[Problem, ...]]:
    """Read the YAML beside a CSV table: (aws, limits, problems)."""
    reader = _Reader(path)
    root = reader.compose(text)
    top = reader.entries(root, "", COMPANION_KEYS) if root is not None else {}
    reader.check_version(top, required=False)
    aws = reader.layer(top, "aws", AWS_KEYS)
    limits = reader.layer(top, "limits", LIMIT_KEYS)
    return aws, limits, tuple(reader.problems)


_Entries = dict[str, tuple[int, Node]]


class _Reader:
    """Walks the nodes of one file and keeps every problem."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._merging: set[int] = set()

    def report(self, line: int, column: str, message: str) -> None:
        self.problems.append(Problem(self.path, line, column, message))

    def compose(self, text: str) -> Node | None:
        """Parse the text; None and a problem when that is impossible."""
        try:
            if _is_too_deep(text):
                self.report(1, "", f"nested deeper than {MAX_DEPTH} levels; a table needs six")
                return None
            root: Node | None = yaml.compose(text, Loader=_LOADER)
        except yaml.YAMLError as error:
            line, column, why = _explain(error, text)
            self.report(line, f"character {column}", f"not YAML: {why}")
            return None
        except (ValueError, RecursionError) as error:
            self.report(1, "", f"not YAML: {error}")
            return None
        if root is None or _is_null(root):
            self.report(1, "", "empty: a table begins with version: 1")
            return None
        return root

    def check_version(self, top: _Entries, *, required: bool) -> None:
        if "version" not in top:
            if required:
                self.report(1, "version", "missing; write version: 1")
            return
        cell = self.cell(top["version"][1], "version")
        if isinstance(cell.value, bool) or cell.value not in (1, "1"):
            message = f"{describe(cell.value, cell.text)}: not supported; write version: 1"
            self.report(cell.line, "version", message)

    def section(self, top: _Entries, key: str) -> _Entries:
        return self.entries(top[key][1], key) if key in top else {}

    def layer(self, top: _Entries, key: str, known: Collection[str]) -> Layer:
        if key not in top:
            return Layer({}, self.path, 1, key)
        line, node = top[key]
        return self.settings(node, key, known, line)

    def payer(self, name: str, line: int, node: Node, jobs: dict[str, Layer]) -> PayerSource:
        found = self.entries(node, name, (*SETTINGS, "jobs"))
        _, own_node = found.pop("jobs", (line, None))
        layer = self._collect(found, name, line)
        own = self.entries(own_node, f"{name}.jobs") if own_node is not None else {}
        layers = {job: Layer({}, self.path, line, f"{name}.{job}") for job in jobs}
        for job, (job_line, job_node) in own.items():
            written = self.settings(job_node, f"{name}.{job}", JOB_KEYS, job_line)
            if job in jobs or "command" in written.cells:
                layers[job] = written
            else:
                hint = unknown_word(job, tuple(jobs), "job")
                message = f"{quote(job)}: {hint}; a job of this payer alone needs a command"
                self.report(job_line, f"{name}.{job}", message)
        return PayerSource(layer, layers)

    def settings(self, node: Node, column: str, known: Collection[str], line: int) -> Layer:
        return self._collect(self.entries(node, column, known), column, line)

    def _collect(self, found: _Entries, column: str, line: int) -> Layer:
        cells: dict[str, Cell] = {}
        for key, (_, node) in found.items():
            place = f"{column}.{key}"
            if key not in MAP_SETTINGS | LIMIT_MAPS:
                cells[key] = self.cell(node, place)
                continue
            for name, (_, value) in self.entries(node, place).items():
                cells[f"{key}.{name}"] = self.cell(value, f"{place}.{name}")
        return Layer(cells, self.path, line, column)

    def entries(self, node: Node, column: str, known: Collection[str] | None = None) -> _Entries:
        """Read a mapping: name -> (line of the name, value). Unknown names are left out."""
        if _is_null(node):
            return {}
        if not isinstance(node, MappingNode):
            message = f"{_kind(node)}: write a mapping, like {{key: value}}"
            self.report(_line(node), column, message)
            return {}
        found: _Entries = {}
        merged: _Entries = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged = self._merge(value, column) | merged
            else:
                self._add(found, key, value, column)
        everything = merged | found
        for name in [n for n in everything if known is not None and n not in known]:
            line, _ = everything.pop(name)
            self.report(line, _join(column, name), self._unknown(name, column, known or ()))
        return everything

    def _merge(self, node: Node, column: str) -> _Entries:
        if id(node) in self._merging:
            self.report(_line(node), column, "this << merges itself")
            return {}
        self._merging.add(id(node))
        parts = node.value if isinstance(node, SequenceNode) else [node]
        merged: _Entries = {}
        for part in parts:
            merged = self.entries(part, column) | merged
        self._merging.discard(id(node))
        return merged

    def _add(self, found: _Entries, key: Node, value: Node, column: str) -> None:
        if not isinstance(key, ScalarNode):
            self.report(_line(key), column, f"{_kind(key)} as a key: write a name")
            return
        name = str(key.value)
        if name in found:
            message = f"written twice, first in line {found[name][0]}; keep one"
            self.report(_line(key), _join(column, name), message)
            return
        found[name] = (_line(key), value)

    def _unknown(self, name: str, column: str, known: Collection[str]) -> str:
        if name in SETTINGS and column.startswith(("aws", "limits")):
            return "not here; write it in defaults, in a job or in a payer"
        if name in PAYER_SETTINGS:
            return "a setting of the payer's DAG; write it at the payer or in defaults"
        if not column and name in SETTINGS and nearest(name, list(known)) is None:
            return "not here; write it in defaults, in a job or in a payer"
        return refuse_loosening(name) or unknown_word(name, tuple(known), "key")

    def cell(self, node: Node, column: str) -> Cell:
        if isinstance(node, SequenceNode):
            lines = tuple(_line(item) for item in node.value)
            items = [self.scalar(item, column) for item in node.value]
            return Cell(items, self.path, _line(node), column, item_lines=lines)
        text = str(node.value) if isinstance(node, ScalarNode) else ""
        return Cell(self.scalar(node, column), self.path, _line(node), column, text)

    def scalar(self, node: Node, column: str) -> object:
        """Read one value by YAML 1.1's rules; dates stay text."""
        if not isinstance(node, ScalarNode):
            return {} if isinstance(node, MappingNode) else []
        kind = str(node.tag).removeprefix(_TAG)
        text = str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return _BOOLEANS.get(text.lower(), text)
        if kind in ("int", "float"):
            return _number(node, kind, text)
        if kind not in _PLAIN:
            self.report(_line(node), column, f"the YAML tag {quote(kind)} is not allowed")
        return text


def _number(node: ScalarNode, kind: str, text: str) -> object:
    make = yaml.constructor.SafeConstructor()
    try:
        return make.construct_yaml_int(node) if kind == "int" else make.construct_yaml_float(node)
    except (ValueError, IndexError):
        return text


def _is_too_deep(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


def _explain(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Name line, column and cause of a syntax error, all 1-based."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        why = getattr(error, "problem", None) or getattr(error, "context", None) or "syntax error"
        return mark.line + 1, mark.column + 1, str(why)
    position = getattr(error, "position", 0)
    before = text[:position]
    column = position - (before.rfind("\n") + 1) + 1
    return before.count("\n") + 1, column, "a control character is not allowed"


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == _TAG + "null"


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, SequenceNode) else "one value"


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _join(column: str, name: str) -> str:
    return f"{column}.{name}" if column else name
