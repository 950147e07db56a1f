"""Why a success of a task has to be ended by a worker: otherwise something would be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf, get_listener_manager

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.model.spec import JobSpec
    from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator


def find_worker_reasons(
    operator: EphemeralEC2Operator, spec: JobSpec, own: type[EphemeralEC2Operator]
) -> tuple[str, ...]:
    """
    Name what Airflow does at the end of a success on a worker only, and this task wants.

    None of it: the triggerer ends the task (``TaskSuccessEvent``), which sets the state and pushes
    the XCom, and no worker has to start for that. ``docs/how-it-works.md`` has the list.

    :param own: the operator's class as this package has it; a subclass may do more
    """
    kind = type(operator)
    found = {
        "wait_for_completion=False": not operator.wait_for_completion,
        "log_to_airflow: all": spec.log_to_airflow == "all",
        "xcom_backend": not _is_plain(conf.get("core", "xcom_backend", fallback="")),
        "outlets": bool(operator.outlets),
        "on_success_callback": bool(operator.on_success_callback),
        "post_execute": bool(operator._post_execute_hook)  # noqa: SLF001 - Airflow has no other name
        or kind.post_execute is not own.post_execute,
        "execute_complete": kind.execute_complete is not own.execute_complete,
        "multiple_outputs": getattr(operator, "multiple_outputs", False),
        "expand": any(True for _ in operator.iter_mapped_dependants()),
        "map_index_template": bool(getattr(operator, "map_index_template", None)),
        "listener": bool(get_listener_manager().hook.on_task_instance_success.get_hookimpls()),
    }
    return tuple(reason for reason, holds in found.items() if holds)


def _is_plain(backend: str) -> bool:
    """Whether XComs go to Airflow's own database as they are."""
    return not backend or (backend.startswith("airflow.") and backend.endswith(".BaseXCom"))
