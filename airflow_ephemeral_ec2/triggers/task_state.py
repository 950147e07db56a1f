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
_WAITS = frozenset({"deferred", "up_for_retry", "up_for_reschedule"})
"""Nobody has ended the task: it waits, here or elsewhere, or will be tried again."""
_CLEARED_OR_RESUMED = frozenset({"none", "scheduled", "queued", "running"})
"""A task that was deferred is here after a clear, and on its way out of a trigger that has ended."""


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


def list_part_states(dag_id: str, run_id: str, task_id: str) -> list[str]:
    """
    List the states of a task in one run: one, or one for each part of a mapped task.

    Blocking; for a task on a worker.
    """
    try:
        from airflow.sdk.execution_time.task_runner import (  # noqa: PLC0415 - Airflow 3 only
            RuntimeTaskInstance,
        )
    except ImportError:
        return list(_list_from_database(dag_id, task_id, run_id=run_id).values())
    runs = RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=[run_id])
    return [_name(state) for state in runs.get(run_id, {}).values()]


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


def _list_from_database(dag_id: str, task_id: str, **more: str) -> dict[tuple[str, int], str]:
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415 - Airflow 2 only
    from airflow.utils.session import create_session  # noqa: PLC0415

    with create_session() as session:
        columns = (TaskInstance.run_id, TaskInstance.map_index, TaskInstance.state)
        rows = session.query(*columns).filter_by(dag_id=dag_id, task_id=task_id, **more).all()
    return {(run_id, map_index): _name(state) for run_id, map_index, state in rows}


def is_abandoned(state: str | None, *, is_in_doubt: bool = False) -> bool:
    """
    Decide whether a cancelled trigger's attempt should be killed.

    Airflow cancels triggers for more reasons than a user's: a triggerer that stalled and woke up
    gets ``on_kill`` for every trigger it held, with the tasks still deferred elsewhere. Or the
    trigger has failed elsewhere, and a retry is about to adopt the attempt: its task is then
    ``up_for_retry``, where no user can put it, or on its way to or from there. On that way a task
    looks as if it had been cleared; then only a triggerer that never stalled knows better. A task
    that was cleared after all ends the attempt itself, as soon as its next try begins. When the
    state cannot be known nobody is killed; the machine's own limits still hold.

    :param state: of the task instance now; None when it cannot be known
    :param is_in_doubt: another triggerer may have run this trigger meanwhile
    """
    if state is None or state in _WAITS:
        return False
    return not (is_in_doubt and state in _CLEARED_OR_RESUMED)


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
