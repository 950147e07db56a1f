"""Bytes -> ConfigTable, or every problem at once. Reads files, never AWS."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from airflow_ephemeral_ec2.config_table.cells import TableSource
from airflow_ephemeral_ec2.config_table.checks import check_rows, sort_problems
from airflow_ephemeral_ec2.config_table.csv_source import read_csv
from airflow_ephemeral_ec2.config_table.lock import read_lock
from airflow_ephemeral_ec2.config_table.messages import quote
from airflow_ephemeral_ec2.config_table.rows import make_rows
from airflow_ephemeral_ec2.config_table.table import ConfigTable, name_lock_path
from airflow_ephemeral_ec2.config_table.yaml_source import read_yaml
from airflow_ephemeral_ec2.exceptions import Problem, TableError, nearest
from airflow_ephemeral_ec2.model.spec import LockFile

MAX_BYTES = 10 * 1024 * 1024
SUFFIXES = (".yaml", ".yml", ".csv")
_NO_LOCK = LockFile()

ExtraCheck = Callable[[ConfigTable], Iterable[Problem]]
"""A check of another part, like the size of user data; it sees the rows that are right so far."""


@dataclass(frozen=True)
class TableCheck:
    """What a look at a table found."""

    table: ConfigTable | None
    """None when there is any problem."""
    problems: tuple[Problem, ...]
    jobs: int
    """How many jobs (payer times job, disabled ones included) were looked at."""


def load_table(path: str | Path, extra_checks: Iterable[ExtraCheck] = ()) -> ConfigTable:
    """
    Read a table file (``.yaml``, ``.yml`` or ``.csv``) and its lock file.

    :raises TableError: with every problem.
    """
    return _or_raise(check_table(path, extra_checks))


def load_table_text(
    data: bytes | str,
    name: str,
    *,
    companion: bytes | str | None = None,
    lock: LockFile = _NO_LOCK,
    extra_checks: Iterable[ExtraCheck] = (),
) -> ConfigTable:
    """
    Read a table from bytes that somebody else fetched, an ``s3://`` object for example.

    :param name: for messages and, by its suffix, the format.
    :param companion: the YAML with limits beside a CSV (:func:`name_companion`).
    :raises TableError: with every problem.
    """
    return _or_raise(
        check_table_text(data, name, companion=companion, lock=lock, extra_checks=extra_checks)
    )


def check_table(path: str | Path, extra_checks: Iterable[ExtraCheck] = ()) -> TableCheck:
    """Like :func:`load_table`, but returns the problems."""
    name = str(path)
    if name.startswith(("s3:/", "S3:/")):
        message = "an S3 object: fetch it and use load_table_text; load_table reads files only"
        return _failed(Problem(name, 0, "", message))
    file = Path(path)
    found = _read(file, name)
    if isinstance(found, Problem):
        return _failed(found)
    companion: bytes | None = None
    beside = Path(name_companion(name))
    if file.suffix == ".csv" and beside.is_file():
        extra = _read(beside, str(beside))
        if isinstance(extra, Problem):
            return _failed(extra)
        companion = extra
    lock, lock_problems = read_lock(name_lock_path(name))
    return check_table_text(
        found,
        name,
        companion=companion,
        lock=lock,
        folder=file.parent,
        extra_checks=extra_checks,
        lock_problems=lock_problems,
    )


def check_table_text(
    data: bytes | str,
    name: str,
    *,
    companion: bytes | str | None = None,
    lock: LockFile = _NO_LOCK,
    folder: Path | None = None,
    extra_checks: Iterable[ExtraCheck] = (),
    lock_problems: tuple[Problem, ...] = (),
) -> TableCheck:
    """
    Like :func:`load_table_text`, but returns the problems.

    :param folder: where code folders are looked for; None: not looked for.
    """
    try:
        raw, beside = _encode(data), _encode(companion or b"")
        source = _parse(raw, name, beside)
    except UnicodeError as error:
        return _failed(*lock_problems, _not_utf8(error, data, name))
    rows, limits, problems = make_rows(source)
    table = ConfigTable(
        path=name,
        version=1,
        sha256=hashlib.sha256(raw + beside).hexdigest(),
        limits=limits,
        lock=lock,
        rows={(row.spec.payer, row.spec.job): row for row in rows if row.is_complete},
    )
    problems += [*lock_problems, *source.problems, *check_rows(source, rows, limits, lock, folder)]
    for check in extra_checks:
        problems += check(table)
    ordered = sort_problems(problems)
    return TableCheck(None if ordered else table, ordered, len(rows))


def name_companion(path: str) -> str:
    """``payers.csv`` -> ``payers.limits.yaml``: version, aws and limits of a CSV table."""
    return path.removesuffix(".csv") + ".limits.yaml"


def _parse(raw: bytes, name: str, beside: bytes) -> TableSource:
    text = raw.decode("utf-8-sig")
    if name.endswith(".csv"):
        return read_csv(text, name, beside.decode("utf-8-sig"), name_companion(name))
    return read_yaml(text, name)


def _read(file: Path, name: str) -> bytes | Problem:
    try:
        if file.suffix not in SUFFIXES:
            return Problem(name, 0, "", f"{_missing_or(file)}must end in {', '.join(SUFFIXES)}")
        if file.stat().st_size > MAX_BYTES:
            return Problem(name, 0, "", f"larger than {MAX_BYTES // 1024**2} MiB; not a table")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Problem(name, 0, "", _explain_absence(file))
    except IsADirectoryError:
        return Problem(name, 0, "", "a folder; name a file in it")
    except (OSError, ValueError) as error:
        return Problem(name, 0, "", f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _missing_or(file: Path) -> str:
    return "" if file.exists() else "no such file; a table "


def _explain_absence(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"no such file: the folder {quote(str(folder))} does not exist"
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in SUFFIXES)
    near = nearest(file.name, names)
    if near:
        return f"no such file; did you mean {quote(near)}?"
    return f"no such file; tables in that folder: {', '.join(names[:10]) or 'none'}"


def _encode(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _not_utf8(error: UnicodeError, data: bytes | str, name: str) -> Problem:
    start = getattr(error, "start", 0)
    before = data[:start] if isinstance(data, bytes) else data[:start].encode("utf-8", "replace")
    line = before.count(b"\n") + 1
    return Problem(name, line, "", "not UTF-8 text; save the file as UTF-8")


def _or_raise(found: TableCheck) -> ConfigTable:
    if found.table is None:
        raise TableError(found.problems)
    return found.table


def _failed(*problems: Problem) -> TableCheck:
    return TableCheck(None, problems, 0)
