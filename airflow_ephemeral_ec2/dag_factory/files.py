"""A payer whose DAG is started by files: a second, small DAG takes the files and starts runs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_ephemeral_ec2.hooks.file_queue import MAX_MESSAGES, VISIBILITY_SECONDS
from airflow_ephemeral_ec2.sensors.files import EphemeralEC2FileSensor

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.config_table.table import FilesSetting

START_DATE = datetime(2024, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - the form that DAG files know
RETRIES = {
    # A failed run's successor would fail at once again; better one that tries for long.
    "retries": 100,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}
FOREVER_SECONDS = 10 * 365 * 86_400.0
LONG_POLL_SECONDS = 20
_PAGE = (
    "Takes the files of payer **{payer}** that land at `{files}` and starts a run of `{dag_id}` for "
    "each of their business dates. Waits by {how} (docs/files.md)."
)


def run_limit(table: ConfigTable, payer: str) -> dict[str, Any]:
    """One run at a time where files start them: two of the same date would do everything twice."""
    return {"max_active_runs": 1} if table.files(payer) else {}


def name_files_dag(dag_id: str) -> str:
    """Name the DAG that takes the files of a payer's DAG."""
    return f"{dag_id}_files"


def files_dag(
    table: ConfigTable, payer: str, payer_dag: DAG, deferrable: bool, default_args: dict[str, Any]
) -> dict[str, DAG]:
    """
    Build the DAG that takes a payer's files; no DAG when no files start the payer's runs.

    Where Airflow 3 has the SQS message queue provider (the extra ``files``), an asset watcher
    starts its runs; otherwise one run of it always waits with a deferred sensor.

    :return: by DAG id
    """
    files = table.files(payer)
    if files is None:
        return {}
    dag_id = name_files_dag(payer_dag.dag_id)
    watched = has_message_queues()
    how = "an asset watcher" if watched else "a sensor that is always deferred"
    with DAG(
        dag_id,
        schedule=[_asset(dag_id, files)] if watched else "@continuous",
        start_date=START_DATE,
        catchup=False,
        max_active_runs=4 if watched else 1,  # "@continuous" allows one
        tags=["ephemeral-ec2", payer],
        doc_md=_PAGE.format(payer=payer, files=files.files, dag_id=payer_dag.dag_id, how=how),
        default_args=default_args | RETRIES,
    ) as dag:
        take = EphemeralEC2FileSensor(
            task_id="take",
            payer=payer,
            files=files.files,
            queue_url=files.queue_url,
            aws_conn_id=files.aws_conn_id,
            region=files.region,
            deferrable=deferrable,
            timeout=FOREVER_SECONDS,
        )
        _trigger_operator().partial(
            task_id="start", trigger_dag_id=payer_dag.dag_id, skip_when_already_exists=True
        ).expand_kwargs(take.output)
    return {dag_id: dag}


def has_message_queues() -> bool:
    """Whether Airflow can watch an SQS queue: version 3, common-messaging and aiobotocore."""
    names = ("airflow.sdk", "airflow.providers.common.messaging", "aiobotocore")
    return all(_is_there(name) for name in names)


def _trigger_operator() -> Any:  # noqa: ANN401 - a class; each version has it elsewhere
    standard = "airflow.providers.standard.operators"
    place = standard if _is_there(standard) else "airflow.operators"
    return import_module(f"{place}.trigger_dagrun").TriggerDagRunOperator


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _asset(dag_id: str, files: FilesSetting) -> Asset:
    # Only here: both are of Airflow 3, and the second one loads every provider.
    from airflow.providers.common.messaging.triggers.msg_queue import (  # noqa: PLC0415
        MessageQueueTrigger,
    )
    from airflow.sdk import AssetWatcher  # noqa: PLC0415

    trigger = MessageQueueTrigger(
        scheme="sqs",
        sqs_queue=files.queue_url,
        aws_conn_id=files.aws_conn_id,
        region_name=files.region,
        max_messages=MAX_MESSAGES,
        visibility_timeout=VISIBILITY_SECONDS,
        wait_time_seconds=LONG_POLL_SECONDS,
        waiter_delay=1,
        # The task deletes them, once the files are recorded.
        delete_message_on_reception=False,
    )
    return Asset(name=dag_id, watchers=[AssetWatcher(name="files", trigger=trigger)])
