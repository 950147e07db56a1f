"""Which attempts end with their task on a worker, and which stay for the next try."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowTaskTimeout,
    get_current_context,
)

from airflow_ephemeral_ec2.hooks.attempts import kill_attempt, kill_latest
from airflow_ephemeral_ec2.hooks.ec2 import open_fleet, open_store
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.task_context import PLACE_KEY, find_identity, has_tries_left
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers.task_state import (
    ask_within,
    is_abandoned_on_worker,
    read_task_state,
)

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, OpenAttempt
    from airflow_ephemeral_ec2.settings import Settings

log = logging.getLogger(__name__)
ANSWER_SECONDS = 2.0
"""Airflow 3 sends SIGKILL 5 s after SIGTERM; the machine has to be ended before."""


@dataclass
class WorkerHold:
    """What this worker's try of the task has in hand."""

    context: Any
    holder: str
    """Random; it stands in the task's XCom as soon as the attempt is announced."""
    settings: Settings
    order: LaunchOrder
    opened: OpenAttempt | None = None
    is_announced: bool = False


def read_place(context: Any) -> dict[str, Any] | None:  # noqa: ANN401 - Airflow's Context differs per version
    """Read where this very task instance's latest try has its attempt."""
    ti = context["ti"]
    place = ti.xcom_pull(task_ids=ti.task_id, key=PLACE_KEY, map_indexes=ti.map_index)
    return place if isinstance(place, dict) else None


def end_on_worker(hold: WorkerHold) -> None:
    """End the attempt of a task that is killed on its worker, if nobody wants it any more."""
    state = "execution_timeout"
    timed_out = isinstance(sys.exception(), AirflowTaskTimeout)
    if not timed_out:
        answer = ask_within(ANSWER_SECONDS, lambda: _ask(hold))
        known, is_holder = answer if isinstance(answer, tuple) else (None, False)
        left = has_tries_left(hold.context)
        if not is_abandoned_on_worker(known, has_tries_left=left, is_holder=is_holder):
            log.warning("this worker was told to stop; the task is %s: the job goes on", known)
            return
        state = str(known)
    store = open_store(hold.settings)
    fleet = open_fleet(hold.settings, hold.order.spec.aws_conn_id, hold.order.spec.region)
    kill = Kill("cancelled", by=f"Airflow (on its worker; task {state})")
    if hold.opened is None:
        kill_latest(store, fleet, hold.order.identity, kill)
    else:
        kill_attempt(store, fleet, hold.opened.jobkey, hold.opened.choice.attempt, kill)


def _ask(hold: WorkerHold) -> tuple[str, bool]:
    state = read_task_state(find_identity(hold.context))
    place = read_place(hold.context)
    is_holder = (place or {}).get("holder") == hold.holder if hold.is_announced else place is None
    return state, is_holder


def end_overdue() -> None:
    """
    End the attempt of a task that comes back from its deferral after its ``execution_timeout``.

    Airflow 2 calls ``on_kill`` then and nothing else (``taskinstance._execute_task``); its trigger
    has ended the attempt already, unless the triggerer was down.
    """
    if isinstance(sys.exception(), AirflowTaskTimeout):
        try:
            context = get_current_context()
        except AirflowException:
            return
        end_deferred(context, "execution_timeout")


def end_deferred(context: Any, reason: str) -> None:  # noqa: ANN401
    """End the attempt of a task whose deferral has failed."""
    place = read_place(context)
    if place is None:
        return
    settings = settings_from_airflow()
    fleet = open_fleet(settings, place["aws_conn_id"], place["region"])
    kill = Kill("cancelled", by=f"Airflow ({reason or 'the trigger failed'})")
    kill_attempt(open_store(settings), fleet, place["jobkey"], place["attempt"], kill)
