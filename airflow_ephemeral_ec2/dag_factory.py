"""A config table -> one DAG per payer, with the table's order as its edges."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_ephemeral_ec2.config_table import ConfigTable, load_table
from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_ephemeral_ec2.model.spec import JobSpec
    from airflow_ephemeral_ec2.notifications.alerts import Alerts

RETRY_DELAY = timedelta(seconds=30)
START_DATE = datetime(2024, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - the form that DAG files know
_FORM = (
    "Runs the jobs of payer **{payer}** for one business date, each on its own EC2 instance, "
    "in the order of the table `{table}`."
)


def payer_dags(
    table: str | Path,
    *,
    dag_id: str = "payer_{payer}",
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    alerts: Alerts | None = None,
    **dag_arguments: Any,  # noqa: ANN401 - DAG's own
) -> dict[str, DAG]:
    """
    Build one DAG per payer of a config table; put them into the globals of a DAG file.

    The structure is read when the file is parsed; sizes and limits are read again when a task
    runs, so an edited row counts from the next attempt on.

    :param table: the table's path
    :param dag_id: pattern of the DAG ids
    :param deferrable: wait in the triggerer
    :param default_args: as for ``DAG``
    :param alerts: who is told of failures and missing capacity
    :param dag_arguments: further arguments of each ``DAG``
    :raises TableError: names every error of the table; Airflow shows it as the import error
    """
    loaded = load_table(table)
    arguments = {"start_date": START_DATE, "catchup": False, "max_active_runs": 4} | dag_arguments
    task_arguments = (alerts.arguments() if alerts else {}) | dict(default_args or {})
    dags = {}
    for payer in loaded.payers:
        jobs = loaded.jobs(payer)
        if jobs:
            name = dag_id.format(payer=payer)
            dags[name] = _payer_dag(loaded, payer, name, deferrable, task_arguments, arguments)
    return dags


def _payer_dag(
    table: ConfigTable,
    payer: str,
    dag_id: str,
    deferrable: bool,
    default_args: dict[str, Any],
    arguments: dict[str, Any],
) -> DAG:
    path = str(table.path)
    with DAG(
        dag_id,
        schedule=table.schedule(payer),
        tags=["ephemeral-ec2", payer],
        doc_md=_FORM.format(payer=payer, table=Path(path).name),
        default_args={"retry_delay": RETRY_DELAY} | default_args,
        params={
            "business_date": Param(
                None,
                type=["null", "string"],
                format="date",
                title="Business date",
                description="Empty: the date of the run.",
            )
        },
        **arguments,
    ) as dag:
        tasks = {spec.job: _task(spec, path, deferrable) for spec in table.jobs(payer)}
        for spec in table.jobs(payer):
            for before in spec.depends_on:
                tasks[before] >> tasks[spec.job]
    return dag


def _task(spec: JobSpec, path: str, deferrable: bool) -> Any:  # noqa: ANN401 - operator or mapped operator
    common: dict[str, Any] = {
        "task_id": spec.job,
        "retries": spec.retries,
        # The queue decides who comes first; Airflow's own order only moves tasks to the queue.
        "priority_weight": spec.priority,
        "weight_rule": "absolute",
    }
    fixed: dict[str, Any] = {
        "payer": spec.payer,
        "job": spec.job,
        "config_table": path,
        "deferrable": deferrable,
    }
    if spec.array_size == 1:
        return EphemeralEC2Operator(**common, **fixed)
    return EphemeralEC2Operator.partial(**common, **fixed).expand(
        array_index=list(range(spec.array_size))
    )
