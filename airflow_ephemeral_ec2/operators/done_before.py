"""What another run has done for the same date: a new run of a backfill leaves it out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.ec2 import open_store
from airflow_ephemeral_ec2.model.identity import name_jobkey
from airflow_ephemeral_ec2.model.order import (
    DatedJob,
    DatedKey,
    find_earlier_success,
    have_skipped_themselves,
    sum_up,
)
from airflow_ephemeral_ec2.model.task_context import is_made_by_backfill, is_new_in_backfill

if TYPE_CHECKING:
    from typing import Any

    from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.spec import JobSpec
    from airflow_ephemeral_ec2.settings import Settings


class DoneBefore:
    """
    The recorded successes of one payer and business date.

    Airflow knows by the logical date which days have had a run. Runs that assets, files or a
    person with a ``business_date`` started have none or another, so that a backfill makes a new
    run for such a day: nobody asked for the work to be done twice.

    :param is_new: nobody has asked for this task again, by clearing it
    """

    def __init__(self, store: JobStore, order: LaunchOrder, *, is_new: bool) -> None:
        self._store, self._order, self._is_new = store, order, is_new

    def find_own(self) -> str | None:
        """
        Name the attempt of another run that has done this task's job, or its part of an array.

        None: nobody has, or this task was cleared, or has an attempt of its own, to be adopted.
        """
        if not self._is_new:
            return None
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

    def is_left_out(self, spec: JobSpec) -> bool:
        """
        Say whether a job that was skipped in this run was so because it is done.

        It has an up-to-date success, in whatever run, and has not skipped itself in this one.
        """
        key = self._key(spec.job)
        asked = self._store.find_by_date(key.payer, key.job, key.business_date)
        history = self._store.read_history(key)
        recorded = sum_up(asked, history)
        if not recorded.has_succeeded or recorded.is_stale:
            return False
        return not have_skipped_themselves(self._name_parts(spec), history)

    def _name_parts(self, spec: JobSpec) -> list[str]:
        """Name the parts of a job as this run asks for them (``dag_factory``)."""
        indexes = range(spec.array_size) if spec.array_size > 1 else (-1,)
        secret, environment = self._store.read_secret(), self._store.environment
        identity = replace(self._order.identity, task_id=spec.job)
        return [
            name_jobkey(secret, environment, replace(identity, map_index=index))
            for index in indexes
        ]

    def _key(self, job: str) -> DatedKey:
        return DatedKey(self._order.spec.payer, job, self._order.business_date)


def find_done_before(
    context: Any,  # noqa: ANN401 - Airflow's Context differs per version
    settings: Settings,
    order: LaunchOrder,
) -> DoneBefore | None:
    """Return what this run may leave out, if a backfill has made it; else None."""
    if not is_made_by_backfill(context):
        return None
    return DoneBefore(open_store(settings), order, is_new=is_new_in_backfill(context))
