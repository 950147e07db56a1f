"""Is the task instance behind a trigger still deferred? The one place that asks, per Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.model.identity import TaskIdentity


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


def is_abandoned(state: str | None) -> bool:
    """
    Decide whether a cancelled trigger's attempt should be killed.

    Airflow cancels triggers for more reasons than a user's: a triggerer that stalled and woke up
    gets ``on_kill`` for every trigger it held, with the tasks still deferred elsewhere. When the
    state cannot be known nobody is killed; the machine's own limits still hold.
    """
    return state is not None and state != "deferred"
