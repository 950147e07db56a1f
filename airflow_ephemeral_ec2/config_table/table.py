"""The config table as everybody reads it: payers, their jobs in order, limits, lock file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from airflow_ephemeral_ec2.config_table.rows import Row
from airflow_ephemeral_ec2.exceptions import Problem, UnknownJobError
from airflow_ephemeral_ec2.model.spec import JobSpec, Limits, LockFile


@dataclass(frozen=True)
class FilesSetting:
    """``files`` and ``files_queue`` of a payer."""

    files: str
    queue_url: str
    aws_conn_id: str
    region: str


@dataclass(frozen=True)
class ConfigTable:
    """One version of a table without errors."""

    path: str
    """As the user named it."""
    version: int
    sha256: str
    """Of the bytes read (with those of the YAML beside a CSV): the table version."""
    limits: Limits
    lock: LockFile = field(compare=False)
    """What ``push`` wrote beside the table; empty before the first push."""
    rows: Mapping[tuple[str, str], Row] = field(repr=False, compare=False)
    """By payer and job, disabled ones included, in the order of the table."""

    @property
    def lock_path(self) -> Path:
        """``payers.lock.json`` beside ``payers.yaml``."""
        return name_lock_path(self.path)

    @cached_property
    def _enabled(self) -> dict[str, tuple[JobSpec, ...]]:
        found: dict[str, list[JobSpec]] = {}
        for row in self.rows.values():
            if row.spec.enabled:
                found.setdefault(row.spec.payer, []).append(row.spec)
        return {payer: _in_order(specs) for payer, specs in found.items()}

    @property
    def payers(self) -> tuple[str, ...]:
        """Payers with at least one enabled job, in the order of the table."""
        return tuple(self._enabled)

    @property
    def specs(self) -> tuple[JobSpec, ...]:
        """All enabled jobs."""
        return tuple(spec for specs in self._enabled.values() for spec in specs)

    def jobs(self, payer: str) -> tuple[JobSpec, ...]:
        """
        List a payer's enabled jobs, each after all that it depends on.

        :raises UnknownJobError: the table has no such payer, or all its jobs are disabled.
        """
        if payer not in self._enabled:
            raise UnknownJobError("payer", payer, self.payers, self.path)
        return self._enabled[payer]

    def find(self, payer: str, job: str) -> JobSpec:
        """
        Find one enabled job.

        :raises UnknownJobError: payer or job is not in the table, or is disabled.
        """
        specs = self.jobs(payer)
        for spec in specs:
            if spec.job == job:
                return spec
        kind = "job"
        if (payer, job) in self.rows:
            kind = f"enabled job (enabled: false, line {self.line_of(payer, job, 'enabled')})"
        raise UnknownJobError(kind, job, tuple(spec.job for spec in specs), self.path)

    def dependents(self, payer: str, job: str) -> tuple[str, ...]:
        """Name the payer's jobs that depend on a job, directly or not."""
        found = {job}
        for spec in self.jobs(payer):  # each after all that it depends on
            if found.intersection(spec.depends_on):
                found.add(spec.job)
        return tuple(spec.job for spec in self.jobs(payer) if spec.job in found - {job})

    def schedule(self, payer: str) -> str | None:
        """When the payer's DAG runs: a cron expression or ``asset:...``; None: on request only."""
        return self.jobs(payer)[0].schedule

    def files(self, payer: str) -> FilesSetting | None:
        """Files that start the payer's DAG, and who may read of them; None: no files do."""
        spec = self.jobs(payer)[0]
        if spec.files is None or spec.files_queue is None:
            return None
        return FilesSetting(spec.files, spec.files_queue, spec.aws_conn_id, spec.region)

    def line_of(self, payer: str, job: str, setting: str = "") -> int:
        """Line where the payer's job (or one setting of it) is written, 1-based."""
        return self.problem(payer, job, setting, "").line

    def problem(self, payer: str, job: str, setting: str, message: str) -> Problem:
        """Place a problem at a setting of a row: what checks of other parts report."""
        return self.rows[payer, job].problem(setting, message)


def name_lock_path(path: str) -> Path:
    return Path(path).with_suffix(".lock.json")


def _in_order(specs: list[JobSpec]) -> tuple[JobSpec, ...]:
    """Sort by dependency, otherwise as written. A cycle (an error elsewhere) keeps its order."""
    waiting = {spec.job: spec for spec in specs}
    ordered: list[JobSpec] = []
    while waiting:
        free = (s for s in waiting.values() if not any(d in waiting for d in s.depends_on))
        following = next(free, None) or next(iter(waiting.values()))
        ordered.append(waiting.pop(following.job))
    return tuple(ordered)
