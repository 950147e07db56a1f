"""What YAML and CSV have in common: settings in layers, each cell with the place it is written at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_origin

from airflow_ephemeral_ec2.exceptions import Problem
from airflow_ephemeral_ec2.model.spec import JobSpec, Limits

MAP_SETTINGS = frozenset(
    n for n, f in JobSpec.model_fields.items() if get_origin(f.annotation) is dict
)
"""Merged key by key, and written as ``env.X`` in a CSV header; all other settings are replaced."""
LIMIT_MAPS = frozenset(
    n for n, f in Limits.model_fields.items() if get_origin(f.annotation) is dict
)
LIST_SETTINGS = frozenset(
    n for n, f in JobSpec.model_fields.items() if get_origin(f.annotation) is tuple
)
SETTINGS = tuple(n for n in JobSpec.model_fields if n not in ("payer", "job"))
PAYER_SETTINGS = ("schedule", "files", "files_queue")
"""Of the payer's DAG: written at the payer or in the defaults, never at a job."""
REQUIRED = tuple(
    n for n, f in JobSpec.model_fields.items() if f.is_required() and n not in ("payer", "job")
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One value and where it is written."""

    value: object
    path: str
    line: int
    column: str
    text: str = ""
    """A scalar as the user wrote it: YAML reads ``007`` as 7."""
    item_lines: tuple[int, ...] = ()

    def problem(self, message: str, item: object = None) -> Problem:
        """Place a problem here; ``item`` is the index in a list."""
        line = self.line
        if isinstance(item, int) and item < len(self.item_lines):
            line = self.item_lines[item]
        return Problem(self.path, line, self.column, message)


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings written in one place; ``env.X`` and the like are cells of their own."""

    cells: Mapping[str, Cell]
    path: str
    line: int
    column: str = ""
    """Key path of the place (YAML); empty for CSV."""

    def problem(self, setting: str, message: str) -> Problem:
        """Place a problem where the setting could have been written."""
        column = f"{self.column}.{setting}" if self.column and setting else self.column or setting
        return Problem(self.path, self.line, column, message)


@dataclass(frozen=True, slots=True)
class PayerSource:
    """What is written about one payer: for all its jobs, and per job."""

    layer: Layer
    jobs: Mapping[str, Layer]
    """Every job that the payer has, those with nothing of their own included."""


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table as it is written, nothing merged, nothing validated."""

    path: str
    aws: Layer
    defaults: Layer
    jobs: Mapping[str, Layer]
    payers: Mapping[str, PayerSource]
    limits: Layer
    defaults_name: str
    """How messages call the place of defaults."""
    problems: tuple[Problem, ...] = ()

    def layers(self) -> Iterator[Layer]:
        """All layers, each once, as written."""
        yield self.aws
        yield self.defaults
        yield from self.jobs.values()
        for payer in self.payers.values():
            yield payer.layer
            yield from payer.jobs.values()


def nest(cells: Mapping[str, Cell]) -> dict[str, object]:
    """``env.X`` cells -> ``{"env": {"X": ...}}``, the form that the model reads."""
    values: dict[str, object] = {}
    for name, cell in cells.items():
        setting, dot, key = name.partition(".")
        if dot:
            group = values.setdefault(setting, {})
            if isinstance(group, dict):
                group[key] = cell.value
        else:
            values[setting] = cell.value
    return values
