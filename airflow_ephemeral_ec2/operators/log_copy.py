"""The job's output in the task log: only where the row lets it in, for it may hold PHI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.record import may_copy_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.record import OutcomeRecord
    from airflow_ephemeral_ec2.model.spec import JobSpec

LOG_LINES_LIMIT = 10_000
LOG_BYTES_LIMIT = 4 * 1024 * 1024


def copy_log(
    store: JobStore, record: OutcomeRecord, spec: JobSpec, tell: Callable[[str], None]
) -> None:
    """Copy the end of the job's output, where the row lets it into the task log."""
    if record.machine is None or not may_copy_log(spec, record.outcome):
        return
    text = store.read_log_end(record.machine.arn, LOG_BYTES_LIMIT).decode(errors="replace")
    lines = text.splitlines()
    for line in lines[-LOG_LINES_LIMIT:]:
        tell(f"| {line}")
    if len(lines) > LOG_LINES_LIMIT or len(text) >= LOG_BYTES_LIMIT:
        tell(f"only the end is shown; all of it: {record.log_uri}")
