"""Open attempts whose task is over in Airflow: nobody awaits them, and nobody ended them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import BucketError
from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_jobkey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_ephemeral_ec2.hooks.job_store import JobStore

OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance in which nobody awaits its attempt."""


def find_abandoned(
    store: JobStore, states_of: Callable[[str, str], Mapping[tuple[str, int], str] | None]
) -> dict[str, str]:
    """
    Find open, awaited attempts whose task instance is over or gone: name -> its state.

    Run ids may hold PHI and are not in the bucket, so each task instance that Airflow knows is
    named by its keyed hash, and compared. What Airflow cannot say is not abandoned.

    :param states_of: (DAG id, task id) -> (run id, map index) -> state; None when unknown
    """
    secret, found = store.read_secret(), {}
    for (dag_id, task_id), names in _awaited_by_task(store).items():
        states = states_of(dag_id, task_id)
        if states is None:
            continue
        known = {}
        for (run_id, map_index), state in states.items():
            identity = TaskIdentity(dag_id, run_id, task_id, map_index)
            known[name_jobkey(secret, store.environment, identity)] = state
        for name in names:
            state = known.get(name.rpartition("-a")[0], "removed")
            if state in OVER:
                found[name] = state
    return found


def _awaited_by_task(store: JobStore) -> dict[tuple[str, str], list[str]]:
    by_task: dict[tuple[str, str], list[str]] = {}
    for name in store.list_queue().entries:
        jobkey, _, number = name.rpartition("-a")
        try:
            record = store.read_launch(jobkey, int(number))
        except (ValueError, BucketError):
            continue  # the controller says what is wrong with it
        if record.is_awaited:
            by_task.setdefault((record.dag_id, record.task_id), []).append(name)
    return by_task
