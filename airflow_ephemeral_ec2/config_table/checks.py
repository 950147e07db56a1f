"""Checks of cells and rows that the model alone cannot make: secrets, files, machines, limits."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from airflow_ephemeral_ec2.config_table.cells import Cell, TableSource
from airflow_ephemeral_ec2.config_table.dependencies import check_dependencies
from airflow_ephemeral_ec2.config_table.instance_types import (
    find_architecture,
    find_image_architecture,
    find_vcpus,
)
from airflow_ephemeral_ec2.config_table.messages import quote
from airflow_ephemeral_ec2.config_table.rows import Row
from airflow_ephemeral_ec2.config_table.secret_words import ADVICE, explain_secret, is_secret_value
from airflow_ephemeral_ec2.exceptions import Problem, nearest
from airflow_ephemeral_ec2.model.spec import FOLDER, Limits, LockFile, find_conflicts

CRON_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
"""The presets of Airflow that are cron expressions."""


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
    for row in rows:
        for setting, message in find_conflicts(row.spec):
            yield row.problem(setting, message)
        yield from _check_architecture(row, lock)
        yield from _check_vcpus(row, source, limits, lock)


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
        return check_cron(cell.value)
    if setting == "code" and isinstance(cell.value, str) and folder is not None:
        return _check_code(cell.value, cell.path, folder)
    return None


def _check_command(cell: Cell) -> str | None:
    words = cell.value if isinstance(cell.value, list) else [cell.value]
    if any(isinstance(word, str) and is_secret_value(word) for word in words):
        return f"an argument {ADVICE}, and read it from the environment"
    return None


def check_cron(text: str) -> str | None:
    """Say what is wrong with a cron expression, or None."""
    if text in CRON_PRESETS:
        return None
    advice = 'write five fields, like "0 2 * * *" (minute, hour, day, month, weekday)'
    if text.startswith("@"):
        near = nearest(text, CRON_PRESETS)
        hint = f"; did you mean {quote(near)}?" if near else ""
        return f"{quote(text)}: must be one of {', '.join(CRON_PRESETS)}{hint}"
    if len(text.split()) != 5:
        return f"{quote(text)}: {len(text.split())} fields; {advice}"
    is_valid = _find_cron_parser()
    if is_valid is not None and not is_valid(text):
        return f"{quote(text)}: not a cron expression; {advice}"
    return None


def _find_cron_parser() -> Callable[[str], bool] | None:
    """Airflow's own parser; Airflow, and with it croniter, may be absent where tables are checked."""
    try:
        from croniter import croniter  # type: ignore[import-untyped] # noqa: PLC0415 - no stubs; 40 ms that few calls need
    except ImportError:
        return None
    return lambda text: bool(croniter.is_valid(text))


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


def _check_vcpus(
    row: Row, source: TableSource, limits: Limits, lock: LockFile
) -> Iterator[Problem]:
    if limits.vcpus is None:
        return
    counts = [(find_vcpus(name, lock) or 0, name) for name in row.spec.instance_types]
    most, name = max(counts, default=(0, ""))
    if most > limits.vcpus:
        index = row.spec.instance_types.index(name)
        limit = source.limits.cells["vcpus"]
        message = (
            f"{quote(name)} has {most} vCPUs, limits.vcpus is {limits.vcpus} (line {limit.line} of {Path(limit.path).name}): "
            "it could never start; raise the limit or choose a smaller type"
        )
        yield row.problem("instance_types", message, index)


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Drop what was found once per row, and read from top to bottom."""
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda p: (p.path, p.line, p.column)))
