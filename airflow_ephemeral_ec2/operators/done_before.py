"""What another run has done for the same date: a new run of a backfill leaves it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.ec2 import open_store
from airflow_ephemeral_ec2.model.identity import name_jobkey
from airflow_ephemeral_ec2.model.order import DatedJob, DatedKey, find_earlier_success, sum_up
from airflow_ephemeral_ec2.model.task_context import is_new_in_backfill

if TYPE_CHECKING:
    from typing import Any

    from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.settings import Settings


class DoneBefore:
    """
    The recorded successes of one payer and business date.

    Airflow knows by the logical date which days have had a run. Runs that assets, files or a
    person with a ``business_date`` started have none or another, so that a backfill makes a new
    run for such a day: nobody asked for the work to be done twice.
    """

    def __init__(self, store: JobStore, order: LaunchOrder) -> None:
        self._store, self._order = store, order

    def find_own(self) -> str | None:
        """
        Name the attempt of another run that has done this task's job, or its part of an array.

        None: nobody has, or this task has an attempt of its own already, to be adopted.
        """
        store, order = self._store, self._order
        key = self._key(order.spec.job)
        asked = store.find_by_date(key.payer, key.job, key.business_date)
        if not asked:
            # Before the secret is asked for: a dry run must not make a new environment.
            return None
        jobkey = name_jobkey(store.read_secret(), store.environment, order.identity)
        if self._has_attempt(jobkey):
            return None
        part = DatedJob(jobkey, order.array_index, order.spec.array_size)
        found = find_earlier_success(part, asked, store.read_history(key))
        return f"attempt {found.attempt} of {found.jobkey}" if found else None

    def _has_attempt(self, jobkey: str) -> bool:
        try:
            return self._store.last_attempt(jobkey) is not None
        except TamperedObjectError:
            # There is one; opening the attempt deals with it.
            return True

    def has_succeeded(self, job: str) -> bool:
        """Say whether a job of the payer has an up-to-date success, in whatever run."""
        key = self._key(job)
        asked = self._store.find_by_date(key.payer, key.job, key.business_date)
        recorded = sum_up(asked, self._store.read_history(key))
        return recorded.has_succeeded and not recorded.is_stale

    def _key(self, job: str) -> DatedKey:
        return DatedKey(self._order.spec.payer, job, self._order.business_date)


def find_done_before(
    context: Any,  # noqa: ANN401 - Airflow's Context differs per version
    settings: Settings,
    order: LaunchOrder,
) -> DoneBefore | None:
    """Return what this run leaves out, if it is a new one of a backfill; else None."""
    return DoneBefore(open_store(settings), order) if is_new_in_backfill(context) else None
