"""``ephemeral-ec2 init DIR``: a table, a DAG and jobs that run as they are."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.exit_codes import ExitCode
from airflow_ephemeral_ec2.exceptions import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from airflow_ephemeral_ec2.cli.terminal import Terminal

_SUFFIX = ".txt"
"""Python files of the scaffold end in it, so that nobody takes them for modules of this package."""


def init(options: argparse.Namespace, terminal: Terminal) -> int:
    folder: Path = options.folder
    scaffold = dict(_walk(files(__package__).joinpath("scaffold"), ""))
    _refuse_overwriting(folder, scaffold)
    try:
        for name, content in scaffold.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        msg = f"{error.filename} cannot be written: {error.strerror}"
        raise ConfigurationError(msg) from error
    for name in scaffold:
        terminal.show(f"  {folder / name}")
    terminal.show(f"Next: cd {folder}; ephemeral-ec2 validate payers.yaml")
    return ExitCode.OK


def _refuse_overwriting(folder: Path, scaffold: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; name a folder"
        raise ConfigurationError(msg)
    there = [name for name in scaffold if (folder / name).exists()]
    if there:
        msg = f"{folder} has {', '.join(there)} already; nothing was written. Name another folder."
        raise ConfigurationError(msg)


def _walk(place: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(place.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name.removesuffix(_SUFFIX), entry.read_bytes()
