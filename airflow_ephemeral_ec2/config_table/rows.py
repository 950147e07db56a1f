"""
Layers -> one validated row per payer and job.

Precedence, the same for YAML and CSV, the first that names a setting wins:

1. the payer's job     YAML ``payers.acme.jobs.claims``   CSV row ``acme,claims``
2. the payer           YAML ``payers.acme``               CSV row ``acme,*``
3. the job             YAML ``jobs.claims``               CSV row ``*,claims``
4. defaults            YAML ``defaults``, then ``aws``    CSV row ``*,*``, then ``aws`` beside it
5. the setting's own default

``env``, ``secrets`` and ``tags`` merge key by key; everything else, lists too, is replaced.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError, create_model
from pydantic_core import ErrorDetails

from airflow_ephemeral_ec2.config_table.cells import (
    REQUIRED,
    SETTINGS,
    Cell,
    Layer,
    TableSource,
    nest,
)
from airflow_ephemeral_ec2.config_table.messages import explain, quote
from airflow_ephemeral_ec2.exceptions import Problem
from airflow_ephemeral_ec2.model.spec import FORMS, NAME, JobSpec, Limits, Spec

MAX_ROWS = 20_000
"""Payers times jobs; beyond it something multiplies by mistake."""

_PartialSpec: type[BaseModel] = create_model(
    "_PartialSpec",
    __base__=Spec,
    **cast(
        "dict[str, Any]",
        {name: (JobSpec.model_fields[name].rebuild_annotation(), None) for name in SETTINGS},
    ),
)
"""The settings of JobSpec, each optional: one layer at a time is validated with it."""

_ABSENT: dict[str, object] = {
    "command": (), "instance_types": (), "ami": "", "subnets": (),
    "security_groups": (), "instance_profile": "", "region": "",
}  # fmt: skip
"""What checks see of a row where a required setting is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Row:
    """One payer's job with everything merged, and where each setting was written."""

    spec: JobSpec
    cells: Mapping[str, Cell]
    own: Layer
    is_complete: bool

    def problem(self, setting: str, message: str, item: object = None) -> Problem:
        """Place a problem where the setting is written, or where it could have been."""
        cell = self.cells.get(setting)
        if cell is None:
            inside = (c for name, c in self.cells.items() if name.startswith(f"{setting}."))
            cell = next(inside, None)
        if cell is None:
            return self.own.problem(setting, message)
        return cell.problem(message, item)


def make_rows(source: TableSource) -> tuple[tuple[Row, ...], Limits, list[Problem]]:
    """Validate every layer once, merge, and validate every row."""
    count = sum(len(payer.jobs) for payer in source.payers.values())
    if count > MAX_ROWS:
        message = f"{count:,} jobs of payers; at most {MAX_ROWS:,} in one table"
        return (), Limits(), [Problem(source.path, 1, "payers", message)]
    problems = list(_check_names(source))
    wrong: set[int] = set()
    for layer in source.layers():
        problems += _check_layer(layer, wrong)
    limits, limit_problems = _read_limits(source)
    rows = tuple(_merge(source, wrong))
    return rows, limits, [*problems, *limit_problems, *_find_missing(source, rows)]


def _check_names(source: TableSource) -> Iterator[Problem]:
    named = [("job", name, layer) for name, layer in source.jobs.items()]
    for payer, written in source.payers.items():
        named.append(("payer", payer, written.layer))
        named += [("job", n, la) for n, la in written.jobs.items() if n not in source.jobs]
    for kind, name, layer in named:
        if not re.fullmatch(NAME, name):
            message = f"{quote(name)}: not a name of a {kind}; {FORMS[NAME]}"
            yield layer.problem("" if layer.column else kind, message)


def _check_layer(layer: Layer, wrong: set[int]) -> list[Problem]:
    if not layer.cells:
        return []
    try:
        _PartialSpec.model_validate(nest(layer.cells))
    except ValidationError as error:
        found = [one for one in error.errors(include_url=False) if not _is_echo(one)]
        return [_blame(layer, details, wrong) for details in found]
    return []


def _is_echo(details: ErrorDetails) -> bool:
    """Pydantic calls a list too short when all its items were refused."""
    return details["type"] == "too_short" and bool(details["input"])


def _blame(layer: Layer, details: ErrorDetails, wrong: set[int]) -> Problem:
    location = details["loc"]
    names = [".".join(str(part) for part in location[:length]) for length in (2, 1)]
    cell = next((layer.cells[name] for name in names if name in layer.cells), None)
    if cell is None:
        return layer.problem("", details["msg"])
    wrong.add(id(cell))
    return explain(details, cell)


def _merge(source: TableSource, wrong: set[int]) -> Iterator[Row]:
    shared = {**source.aws.cells, **source.defaults.cells}
    of_job = {name: {**shared, **layer.cells} for name, layer in source.jobs.items()}
    for payer, written in source.payers.items():
        for job, own in written.jobs.items():
            cells = {**of_job.get(job, shared), **written.layer.cells, **own.cells}
            yield _make_row(payer, job, cells, own, wrong)


def _make_row(payer: str, job: str, cells: Mapping[str, Cell], own: Layer, wrong: set[int]) -> Row:
    good = cells
    if wrong:
        good = {name: cell for name, cell in cells.items() if id(cell) not in wrong}
    values = nest(good)
    if len(good) == len(cells):
        try:
            spec = JobSpec.model_validate({**values, "payer": payer, "job": job})
        except ValidationError:
            pass  # missing settings and conflicts are reported by their own checks
        else:
            return Row(spec, cells, own, is_complete=True)
    partial = _PartialSpec.model_validate(values)
    known = {name: getattr(partial, name) for name in partial.model_fields_set}
    draft = JobSpec.model_construct(**{**_ABSENT, **known, "payer": payer, "job": job})
    return Row(draft, cells, own, is_complete=False)


def _read_limits(source: TableSource) -> tuple[Limits, list[Problem]]:
    try:
        return Limits.model_validate(nest(source.limits.cells)), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return Limits(), [_blame(source.limits, one, set()) for one in details]


def _find_missing(source: TableSource, rows: tuple[Row, ...]) -> Iterator[Problem]:
    """Report a setting that nobody gives once, at the widest place that lacks it."""
    for setting in REQUIRED:
        lacking = [row for row in rows if not row.is_complete and setting not in row.cells]
        if len(lacking) == len(rows) > 1 and setting != "command":
            message = f"missing; write it in {source.defaults_name} or in each job"
            yield source.defaults.problem(setting, message)
            continue
        for place in _places(source, rows, lacking):
            yield place.problem(setting, f"missing; write it here or in {source.defaults_name}")


def _places(source: TableSource, rows: tuple[Row, ...], lacking: list[Row]) -> Iterator[Layer]:
    lacks = {(row.spec.payer, row.spec.job) for row in lacking}
    whole = {
        job
        for job in {row.spec.job for row in lacking} & source.jobs.keys()
        if all((row.spec.payer, job) in lacks for row in rows if row.spec.job == job)
    }
    yield from (source.jobs[job] for job in source.jobs if job in whole)
    yield from (row.own for row in lacking if row.spec.job not in whole)
