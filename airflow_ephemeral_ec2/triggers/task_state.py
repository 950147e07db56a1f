"""Does anybody still want this attempt? The one place that asks Airflow, per version."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.model.identity import TaskIdentity

log = logging.getLogger(__name__)
_COMES_BACK = frozenset(
    {"none", "scheduled", "queued", "up_for_retry", "up_for_reschedule", "deferred"}
)
"""The task goes on without anybody having asked for an end; its next try adopts the attempt."""


def read_task_state(identity: TaskIdentity) -> str:
    """
    Return the state of a task instance as Airflow has it now: ``removed`` when it is gone.

    Blocking; Airflow 3 asks the API server through the triggerer, Airflow 2 its database.
    """
    try:
        from airflow.sdk.execution_time.task_runner import (  # noqa: PLC0415 - Airflow 3 only
            RuntimeTaskInstance,
        )
    except ImportError:
        return _read_from_database(identity)
    states = RuntimeTaskInstance.get_task_states(
        dag_id=identity.dag_id,
        task_ids=[identity.task_id],
        run_ids=[identity.run_id],
        map_index=identity.map_index if identity.map_index >= 0 else None,
    )
    by_task = states.get(identity.run_id, {})
    mapped = f"{identity.task_id}_{identity.map_index}"
    for key in (identity.task_id, mapped):
        if key in by_task:
            return _name(by_task[key])
    return "removed"


def list_task_states(dag_id: str, task_id: str) -> dict[tuple[str, int], str]:
    """
    Return (run id, map index) -> state of all instances of a task that Airflow knows.

    Blocking; for a task on a worker. Mapped instances are named ``task_3`` by Airflow 3.
    """
    try:
        from airflow.sdk.execution_time.task_runner import (  # noqa: PLC0415 - Airflow 3 only
            RuntimeTaskInstance,
        )
    except ImportError:
        return _list_from_database(dag_id, task_id)
    runs = RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=[task_id])
    found = {}
    for run_id, by_task in runs.items():
        for name, state in by_task.items():
            index = name.removeprefix(task_id).removeprefix("_")
            found[run_id, int(index) if index.isdigit() else -1] = _name(state)
    return found


def _name(state: object) -> str:
    """Write a state; a task that was cleared and not scheduled again has none."""
    return "none" if state is None else str(getattr(state, "value", state))


def _read_from_database(identity: TaskIdentity) -> str:
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415 - Airflow 2 only
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        found = (
            session.query(TaskInstance.state)
            .filter_by(
                dag_id=identity.dag_id,
                run_id=identity.run_id,
                task_id=identity.task_id,
                map_index=identity.map_index,
            )
            .one_or_none()
        )
    return "removed" if found is None else _name(found[0])


def _list_from_database(dag_id: str, task_id: str) -> dict[tuple[str, int], str]:
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415 - Airflow 2 only
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        columns = (TaskInstance.run_id, TaskInstance.map_index, TaskInstance.state)
        rows = session.query(*columns).filter_by(dag_id=dag_id, task_id=task_id).all()
    return {(run_id, map_index): _name(state) for run_id, map_index, state in rows}


def is_abandoned(state: str | None) -> bool:
    """
    Decide whether a cancelled trigger's attempt should be killed.

    Airflow cancels triggers for more reasons than a user's: a triggerer that stalled and woke up
    gets ``on_kill`` for every trigger it held, with the tasks still deferred elsewhere. When the
    state cannot be known nobody is killed; the machine's own limits still hold.
    """
    return state is not None and state != "deferred"


def is_abandoned_on_worker(state: str | None, *, has_tries_left: bool, is_holder: bool) -> bool:
    """
    Decide whether the attempt of a task whose worker is told to stop should be killed.

    A worker gets SIGTERM for more reasons than a user's: its node drains, or a restarted scheduler
    has given the task to another worker, whose try adopts the attempt. Clearing a running task
    makes it ``restarting``.

    :param state: of the task instance now; None when it cannot be known: nobody is killed
    :param has_tries_left: Airflow will try the task again
    :param is_holder: no later try has announced the attempt as its own
    """
    if state is None or state in _COMES_BACK:
        return False
    if state == "running":
        return is_holder and not has_tries_left
    return True


def ask_within(seconds: float, question: Callable[[], object]) -> object:
    """
    Answer a question to Airflow from a signal handler; None when there is no answer in time.

    In a thread of its own: the interrupted code may hold the lock of Airflow's connection
    (``CommsDecoder.send`` of ``airflow.sdk.execution_time.comms``), for good.
    """
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception:
            # Unknown is no reason to kill: the machine's own limits still hold.
            log.exception("cannot ask Airflow for the state of the task")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
