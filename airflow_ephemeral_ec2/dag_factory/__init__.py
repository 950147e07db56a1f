"""A config table -> one DAG per payer, with the table's order as its edges."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, get_parsing_context

from airflow_ephemeral_ec2.config_table import load_cached_table
from airflow_ephemeral_ec2.dag_factory.files import files_dag, name_files_dag, run_limit
from airflow_ephemeral_ec2.dag_factory.form import run_form
from airflow_ephemeral_ec2.dag_factory.outlets import AssetMode, Outlets
from airflow_ephemeral_ec2.dag_factory.timing import Timing
from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_ephemeral_ec2.config_table import ConfigTable
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
    assets: AssetMode | None = "payer",
    default_args: Mapping[str, Any] | None = None,
    alerts: Alerts | None = None,
    daily_backfills: bool = True,
    **dag_arguments: Any,  # noqa: ANN401 - DAG's own
) -> dict[str, DAG]:
    """
    Build one DAG per payer of a config table; put them into the globals of a DAG file.

    The structure is read when the file is parsed; sizes and limits are read again when a task
    runs, so an edited row counts from the next attempt on. A task run builds only its own DAG.

    :param table: the table's path
    :param dag_id: pattern of the DAG ids
    :param deferrable: wait in the triggerer
    :param assets: ``payer``: a payer's successful run updates the asset
        ``ephemeral-ec2://payer/PAYER``; ``job``: each successful job updates
        ``ephemeral-ec2://payer/PAYER/JOB``; None: no assets
    :param default_args: as for ``DAG``
    :param alerts: who is told of failures and missing capacity
    :param daily_backfills: payers without a cron schedule can be backfilled, a run for each day.
        Needs this package where the scheduler and the API server run, too; False: it does not, and
        Airflow refuses to backfill such payers
    :param dag_arguments: further arguments of each ``DAG``; ``params`` are added to the form
    :raises TableError: names every error of the table; Airflow shows it as the import error
    :raises ValueError: ``assets`` is none of these
    """
    loaded = load_cached_table(table)
    arguments = {"start_date": START_DATE, "catchup": False, "max_active_runs": 4} | dag_arguments
    task_arguments = (alerts.arguments() if alerts else {}) | dict(default_args or {})
    given = frozenset(dag_arguments)
    timing = Timing(arguments, task_arguments, daily_backfills)
    factory = _Factory(
        loaded, deferrable, Outlets(assets), timing, task_arguments, arguments, given
    )
    names = {dag_id.format(payer=payer): payer for payer in loaded.payers}
    wanted = get_parsing_context().dag_id
    dags: dict[str, DAG] = {}
    for name, payer in names.items():
        if wanted in (None, name, name_files_dag(name)):
            dags[name] = factory.make(payer, name)
            dags |= files_dag(loaded, payer, dags[name], deferrable, task_arguments)
    return dags


class _Factory:
    """What all DAGs of one call have in common."""

    def __init__(
        self,
        table: ConfigTable,
        deferrable: bool,
        outlets: Outlets,
        timing: Timing,
        default_args: dict[str, Any],
        arguments: dict[str, Any],
        given: frozenset[str],
    ) -> None:
        self._given = given
        self._table, self._deferrable, self._outlets = table, deferrable, outlets
        self._default_args = {"retry_delay": RETRY_DELAY} | default_args
        self._arguments = arguments
        self._timing = timing
        self._name = Path(table.path).name

    def make(self, payer: str, dag_id: str) -> DAG:
        specs = self._table.jobs(payer)
        # A table's file setting yields to what the caller of the factory says.
        limit = {n: v for n, v in run_limit(self._table, payer).items() if n not in self._given}
        when = self._table.schedule(payer)
        with DAG(
            dag_id,
            schedule=self._timing.schedule(when),
            tags=["ephemeral-ec2", payer],
            doc_md=_FORM.format(payer=payer, table=self._name),
            default_args=dict(self._default_args),
            **(self._arguments | limit | self._timing.arguments(when)),
        ) as dag:
            tasks = {spec.job: self._task(spec, specs) for spec in specs}
            for spec in specs:
                for before in spec.depends_on:
                    tasks[before] >> tasks[spec.job]
            self._outlets.add_tasks(specs, tasks)
        # Only now: Airflow copies a DAG's params into each task that is made in it, and checks
        # the schema of each again; with hundreds of DAGs that takes longer than all the rest.
        for name, param in run_form([spec.job for spec in specs]).items():
            if name not in dag.params:
                dag.params[name] = param
        return dag

    def _task(self, spec: JobSpec, specs: Sequence[JobSpec]) -> Any:  # noqa: ANN401 - operator or mapped operator
        common: dict[str, Any] = {
            "task_id": spec.job,
            "retries": spec.retries,
            # The queue decides who comes first; Airflow's own order only moves tasks to the queue.
            "priority_weight": spec.priority,
            "weight_rule": "absolute",
            # A run may leave out jobs. Those after one that skipped itself skip themselves
            # (operators/run_form.py).
            "trigger_rule": "none_failed",
            "outlets": self._outlets.of_task(spec, specs),
        }
        fixed: dict[str, Any] = {
            "payer": spec.payer,
            "job": spec.job,
            "config_table": self._table.path,
            "deferrable": self._deferrable,
        }
        if spec.array_size == 1:
            return EphemeralEC2Operator(**common, **fixed)
        return EphemeralEC2Operator.partial(**common, **fixed).expand(
            array_index=list(range(spec.array_size))
        )
