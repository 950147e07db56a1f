"""Checks of cells and rows that the model alone cannot make: secrets, files, machines, limits."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from airflow_ephemeral_ec2.config_table.cells import Cell, TableSource
from airflow_ephemeral_ec2.config_table.dependencies import check_dependencies
from airflow_ephemeral_ec2.config_table.instance_types import (
    find_architecture,
    find_image_architecture,
    find_vcpus,
)
from airflow_ephemeral_ec2.config_table.messages import quote, unknown_word
from airflow_ephemeral_ec2.config_table.rows import Row
from airflow_ephemeral_ec2.config_table.schedules import check_asset_loops, check_schedule
from airflow_ephemeral_ec2.config_table.secret_words import ADVICE, explain_secret, is_secret_value
from airflow_ephemeral_ec2.exceptions import Problem, nearest
from airflow_ephemeral_ec2.model.spec import (
    FOLDER,
    CapacityType,
    JobSpec,
    Limits,
    LockFile,
    find_conflicts,
)

_PAIRS = {"files": "files_queue", "files_queue": "files"}


def check_rows(
    source: TableSource,
    rows: tuple[Row, ...],
    limits: Limits,
    lock: LockFile,
    folder: Path | None,
) -> Iterator[Problem]:
    """Make all checks; the same problem may come once per row."""
    yield from _check_cells(source, folder)
    yield from check_dependencies(rows)
    yield from check_asset_loops(rows)
    yield from _check_queues(rows)
    for row in rows:
        for setting, message in find_conflicts(row.spec):
            if not _is_misspelt(row, _PAIRS.get(setting)):
                yield row.problem(setting, message)
        yield from _check_architecture(row, lock)
    yield from check_limits(rows, source, limits, lock)


def _is_misspelt(row: Row, setting: str | None) -> bool:
    """Whether a setting is written and was refused, so that a row only seems to lack it."""
    cell = row.cells.get(setting or "")
    return bool(cell and cell.value is not None and getattr(row.spec, setting or "") is None)


def _check_cells(source: TableSource, folder: Path | None) -> Iterator[Problem]:
    """Look at every cell once, however many rows inherit it."""
    for layer in source.layers():
        for name, cell in layer.cells.items():
            setting, _, key = name.partition(".")
            message = _check_cell(setting, key, cell, folder)
            if message:
                yield cell.problem(message)


def _check_cell(setting: str, key: str, cell: Cell, folder: Path | None) -> str | None:
    if setting == "env":
        return explain_secret(key, cell.value)
    if setting in ("command", "pre_command"):
        return _check_command(cell)
    if setting == "schedule" and isinstance(cell.value, str):
        return check_schedule(cell.value)
    if setting == "code" and isinstance(cell.value, str) and folder is not None:
        return _check_code(cell.value, cell.path, folder)
    return None


def _check_command(cell: Cell) -> str | None:
    words = cell.value if isinstance(cell.value, list) else [cell.value]
    if any(isinstance(word, str) and is_secret_value(word) for word in words):
        return f"an argument {ADVICE}, and read it from the environment"
    return None


def _check_code(code: str, path: str, folder: Path) -> str | None:
    if not re.fullmatch(FOLDER, code) or (folder / code).is_dir():
        return None  # a wrong form is reported by the model
    if (folder / code).exists():
        return f"{quote(code)}: a file; write the folder that holds it"
    parent = (folder / code).parent
    names = (
        [f"{entry.name}/" for entry in parent.iterdir() if entry.is_dir()]
        if parent.is_dir()
        else []
    )
    near = nearest(code, names)
    hint = f"; did you mean {quote(near)}?" if near else ""
    return f"{quote(code)}: no such folder beside {Path(path).name}{hint}"


def _check_queues(rows: tuple[Row, ...]) -> Iterator[Problem]:
    """One queue of two payers: each would take messages that the other one needs."""
    owners: dict[str, str] = {}
    for row in rows:
        queue = row.spec.files_queue
        if queue and (owner := owners.setdefault(queue, row.spec.payer)) != row.spec.payer:
            message = f"also the queue of {owner}; each payer needs a queue of its own"
            yield row.problem("files_queue", message)


def _check_architecture(row: Row, lock: LockFile) -> Iterator[Problem]:
    image = find_image_architecture(row.spec.ami, lock)
    if image is None:
        return
    for index, name in enumerate(row.spec.instance_types):
        found = find_architecture(name, lock)
        if found not in (None, image):
            ami = row.cells["ami"]
            message = (
                f"{quote(name)} is {found}, the AMI of {ami.column} (line {ami.line}) is {image}; "
                "choose one architecture"
            )
            yield row.problem("instance_types", message, index)


def check_limits(
    rows: tuple[Row, ...], source: TableSource, limits: Limits, lock: LockFile
) -> Iterator[Problem]:
    """Find limits of nobody, and rows that are larger than a limit."""
    known = {"payers": {row.spec.payer for row in rows}, "jobs": {row.spec.job for row in rows}}
    for kind, names in known.items():
        for name in getattr(limits, kind):
            if name not in names:
                hint = unknown_word(name, tuple(sorted(names)), kind.removesuffix("s"))
                yield source.limits.cells[f"{kind}.{name}"].problem(f"{quote(name)}: {hint}")
    for row in rows:
        yield from _check_vcpus(row, source, limits, lock)


def _check_vcpus(
    row: Row, source: TableSource, limits: Limits, lock: LockFile
) -> Iterator[Problem]:
    counts = [(find_vcpus(name, lock) or 0, name) for name in row.spec.instance_types]
    most, name = max(counts, default=(0, ""))
    for setting, limit in limits_of(row.spec, limits):
        if most <= limit:
            continue
        index = row.spec.instance_types.index(name)
        cell = source.limits.cells[setting]
        where = f"line {cell.line} of {Path(cell.path).name}"
        message = (
            f"{quote(name)} has {most} vCPUs, limits.{setting} is {limit} ({where}): "
            "it could never start; raise the limit or choose a smaller type"
        )
        yield row.problem("instance_types", message, index)


def limits_of(spec: JobSpec, limits: Limits) -> Iterator[tuple[str, int]]:
    """Name the limits that a row counts against, as they are written."""
    capacity_type = getattr(spec, "capacity_type", CapacityType.ON_DEMAND)
    asked = {
        "vcpus": limits.vcpus,
        "on_demand": None if capacity_type is CapacityType.SPOT else limits.on_demand,
        "spot": None if capacity_type is CapacityType.ON_DEMAND else limits.spot,
        f"payers.{spec.payer}": limits.payers.get(spec.payer),
        f"jobs.{spec.job}": limits.jobs.get(spec.job),
    }
    yield from ((name, limit) for name, limit in asked.items() if limit is not None)


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Drop what was found once per row, and read from top to bottom."""
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda p: (p.path, p.line, p.column)))
