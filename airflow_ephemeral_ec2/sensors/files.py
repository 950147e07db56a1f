"""EphemeralEC2FileSensor: wait until files of a payer have landed in S3, and take them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_ephemeral_ec2.exceptions import AwsUnavailableError
from airflow_ephemeral_ec2.hooks.ec2 import connect, open_store
from airflow_ephemeral_ec2.hooks.file_events import DateFiles, FileGate, name_run
from airflow_ephemeral_ec2.hooks.file_queue import FileQueue
from airflow_ephemeral_ec2.hooks.landing_records import LandingRecords
from airflow_ephemeral_ec2.model.landing import Message, parse_place, read_messages
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers.files import EphemeralEC2FileTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EphemeralEC2FileSensor(BaseSensorOperator):
    """
    Take the files that an SQS queue tells of; wait until there are any.

    A file is taken once, however often its event is delivered or the task is tried. Messages are
    deleted after the files are recorded. In a run that an asset watcher of the same queue has
    started (Airflow 3), the messages are those of the run, and a run without a file that counts is
    skipped instead of waiting.

    Returns a list, one item per business date: arguments of ``TriggerDagRunOperator``.

    :param payer: whose files; names the records
    :param files: ``s3://bucket/folder/`` or ``s3://bucket/folder/*.csv``
    :param queue_url: URL of the SQS queue with the bucket's ObjectCreated events; this payer's alone
    :param aws_conn_id: Airflow connection that reads queue and bucket
    :param region: region of the queue and of the bucket
    :param deferrable: wait in the triggerer, without a worker slot
    """

    template_fields: Sequence[str] = ("payer", "files", "queue_url")
    ui_color = "#ffcc80"

    def __init__(
        self,
        *,
        payer: str,
        files: str,
        queue_url: str,
        aws_conn_id: str = "aws_default",
        region: str,
        deferrable: bool = True,
        **kwargs: Any,  # noqa: ANN401 - BaseSensorOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.payer = payer
        self.files = files
        self.queue_url = queue_url
        self.aws_conn_id = aws_conn_id
        self.region = region
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:  # noqa: ANN401 - Airflow's Context differs per version
        """
        Finish what an earlier try decided; take the run's own messages; else wait for others.

        :raises AirflowSkipException: an asset event started the run, and no file counts
        """
        gate, run = self._gate(), _run_of(context)
        found = gate.resume(run)
        if found:
            return self._runs(run, found)
        messages = read_asset_messages(context)
        if messages is not None:
            found = gate.take(run, messages)
            if not found:
                raise AirflowSkipException("no file that counts: nothing to start")
            return self._runs(run, found)
        if self.deferrable:
            self._wait()
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """
        Take what has arrived, or wait for more.

        :raises AirflowException: the queue cannot be read
        """
        event = event or {}
        if "error" in event:
            raise AirflowException(event["error"])
        run = _run_of(context)
        found = self._gate().take(run, read_messages(event.get("message_batch")))
        if not found:
            self._wait()
        return self._runs(run, found)

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ANN401
        """Look once, from a worker."""
        gate, run = self._gate(), _run_of(context)
        try:
            found = gate.take(run, gate.queue.receive())
        except AwsUnavailableError as error:
            self.log.warning("%s", error)
            found = ()
        return PokeReturnValue(bool(found), self._runs(run, found) if found else None)

    def _wait(self) -> None:
        self.log.info("waiting for files of %s", self.payer)
        self.defer(
            trigger=EphemeralEC2FileTrigger(self.queue_url, self.aws_conn_id, self.region),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def _gate(self) -> FileGate:
        clients = connect(self.aws_conn_id, self.region)
        return FileGate(
            FileQueue(clients.sqs, self.queue_url),
            LandingRecords(open_store(settings_from_airflow()), self.payer),
            clients.s3,
            parse_place(self.files),
        )

    def _runs(self, run: str, found: Sequence[DateFiles]) -> list[dict[str, Any]]:
        for one in found:
            late = f"; late, after {one.earlier_runs} earlier" if one.earlier_runs else ""
            self.log.info("%s %s: %d file(s)%s", self.payer, one.business_date, one.count, late)
        return [
            {
                "trigger_run_id": f"files__{one.business_date}__{run[:12]}",
                "conf": {
                    "business_date": one.business_date,
                    "files": {"count": one.count, "late": one.earlier_runs > 0},
                },
            }
            for one in found
        ]


def read_asset_messages(context: Mapping[str, Any]) -> tuple[Message, ...] | None:
    """Read the messages of the asset events that started the run; None: no asset event did."""
    groups: Any = context.get("triggering_asset_events") or {}
    events = [event for group in groups.values() for event in group]
    if not events:
        return None
    found: list[Message] = []
    for event in events:
        payload = (getattr(event, "extra", None) or {}).get("payload") or {}
        found += read_messages(payload.get("message_batch"))
    return tuple(found)


def _run_of(context: Any) -> str:  # noqa: ANN401
    # A run id may come again, with a new database or when all runs were deleted: the first run of
    # "@continuous" is named after the start date. Its interval ends when it is made.
    made = getattr(context["dag_run"], "data_interval_end", None)
    return name_run(context["ti"].dag_id, context["ti"].run_id, str(made or ""))
