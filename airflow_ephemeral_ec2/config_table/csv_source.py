"""CSV text -> layers of cells: a row per payer and job, ``*`` rows as defaults."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_ephemeral_ec2.config_table.cells import (
    LIST_SETTINGS,
    MAP_SETTINGS,
    PAYER_SETTINGS,
    SETTINGS,
    Cell,
    Layer,
    PayerSource,
    TableSource,
)
from airflow_ephemeral_ec2.config_table.launch_shape import refuse_loosening
from airflow_ephemeral_ec2.config_table.messages import quote, unknown_word
from airflow_ephemeral_ec2.config_table.yaml_source import read_companion
from airflow_ephemeral_ec2.exceptions import Problem, nearest

ANY = "*"
_KEYS = ("payer", "job")


def read_csv(text: str, path: str, companion: str, companion_path: str) -> TableSource:
    """Read a CSV table; aws and limits come from the YAML beside it, when there is one."""
    reader = _Reader(path)
    reader.read(text)
    nothing = Layer({}, path, 1)
    aws, limits = nothing, nothing
    if companion:
        aws, limits, problems = read_companion(companion, companion_path)
        reader.problems += problems
    defaults = reader.layers.pop((ANY, ANY), nothing)
    return TableSource(
        path=path,
        aws=aws,
        defaults=defaults,
        jobs=reader.jobs(),
        payers=reader.payers(),
        limits=limits,
        defaults_name="the row *,*",
        problems=tuple(reader.problems),
    )


@dataclass
class _Reader:
    path: str
    problems: list[Problem] = field(default_factory=list)
    layers: dict[tuple[str, str], Layer] = field(default_factory=dict)

    def report(self, line: int, column: str, message: str) -> None:
        self.problems.append(Problem(self.path, line, column, message))

    def read(self, text: str) -> None:
        records = self._records(text)
        line, header = next(records, (1, []))
        header = [name.strip() for name in header]
        if not header:
            self.report(1, "", "empty: the first row names the columns, payer and job among them")
            return
        self._check_header(line, header)
        if any(key not in header for key in _KEYS):
            return
        for line, cells in records:
            self._add(line, header, cells)
        if not self.problems and not any(ANY not in key for key in self.layers):
            self.report(line, "payer", "no job: write at least one row with a payer and a job")

    def _records(self, text: str) -> Iterator[tuple[int, list[str]]]:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        line = 1
        try:
            for cells in rows:
                if any(cell.strip() for cell in cells):
                    yield line, cells
                line = rows.line_num + 1
        except csv.Error as error:
            self.report(max(rows.line_num, 1), "", f"not CSV: {error}")

    def _check_header(self, line: int, header: list[str]) -> None:
        for index, name in enumerate(header):
            if name in header[:index]:
                self.report(line, name, "this column is written twice; keep one")
            elif name not in _KEYS and not _is_setting(name):
                self.report(line, name, _explain_column(name))
        for key in _KEYS:
            if key not in header:
                hint = "; cells are separated by commas" if ";" in header[0] else ""
                self.report(line, key, f"this column is missing{hint}")

    def _add(self, line: int, header: list[str], cells: list[str]) -> None:
        if len(cells) != len(header):
            self.report(line, "", f"{len(cells)} cells, the first row has {len(header)}")
            return
        values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        payer, job = values["payer"], values["job"]
        for key in _KEYS:
            if not values[key]:
                self.report(line, key, "empty; write a name, or * for a row of defaults")
        if not payer or not job:
            return
        if (payer, job) in self.layers:
            first = self.layers[payer, job].line
            self.report(
                line, "job", f"{payer},{job} written twice, first in line {first}; keep one"
            )
            return
        for setting in PAYER_SETTINGS:
            if values.get(setting) and job != ANY:
                message = f"a setting of the payer's DAG; write it in the row {payer},* or *,*"
                self.report(line, setting, message)
                values.pop(setting)
        self.layers[payer, job] = Layer(
            {
                name: _make_cell(name, value, self.path, line)
                for name, value in values.items()
                if value and _is_setting(name)
            },
            self.path,
            line,
        )

    def jobs(self) -> dict[str, Layer]:
        """Rows ``*,claims``."""
        names = {job for payer, job in self.layers if ANY not in (payer, job)}
        found = {job: layer for (payer, job), layer in self.layers.items() if payer == ANY}
        for job in found.keys() - names:
            hint = _near(job, names)
            self.report(
                found[job].line, "job", f"{quote(job)}: no payer has a row for this job{hint}"
            )
        return found

    def payers(self) -> dict[str, PayerSource]:
        """Rows with a payer's name; only rows that name a job too make one."""
        jobs: dict[str, dict[str, Layer]] = {}
        for (payer, job), layer in self.layers.items():
            if ANY not in (payer, job):
                jobs.setdefault(payer, {})[job] = layer
        for (payer, job), layer in self.layers.items():
            if payer != ANY and job == ANY and payer not in jobs:
                hint = _near(payer, set(jobs))
                self.report(layer.line, "payer", f"{quote(payer)}: no row names a job of it{hint}")
        return {
            payer: PayerSource(self.layers.get((payer, ANY), _first(layers)), layers)
            for payer, layers in jobs.items()
        }


def _first(layers: dict[str, Layer]) -> Layer:
    first = next(iter(layers.values()))
    return Layer({}, first.path, first.line)


def _near(found: str, known: set[str]) -> str:
    near = nearest(found, sorted(known))
    return f"; did you mean {quote(near)}?" if near else ""


def _is_setting(name: str) -> bool:
    setting, dot, key = name.partition(".")
    if setting in MAP_SETTINGS:
        return bool(dot and key)
    return name in SETTINGS


def _explain_column(name: str) -> str:
    setting = name.partition(".")[0]
    if not name:
        return "a column without a name"
    if setting in MAP_SETTINGS:
        return f"write one column per name, like {setting}.NAME"
    return refuse_loosening(name) or unknown_word(name, (*_KEYS, *SETTINGS), "column")


def _make_cell(name: str, value: str, path: str, line: int) -> Cell:
    if name in LIST_SETTINGS:
        return Cell([part.strip() for part in value.split("|")], path, line, name, value)
    return Cell(value, path, line, name, value)
