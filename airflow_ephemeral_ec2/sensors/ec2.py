"""EphemeralEC2Sensor: wait for a job that was started elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_ephemeral_ec2.exceptions import ConfigurationError, EphemeralEC2Error, JobEndedError
from airflow_ephemeral_ec2.hooks.ec2 import open_controller, open_store
from airflow_ephemeral_ec2.hooks.job_lookup import JobReference, find_standing
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.record import (
    OutcomeRecord,
    describe_ending,
    describe_failure,
    describe_story,
    xcom_of,
)
from airflow_ephemeral_ec2.model.task_context import find_business_date
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers.job import EphemeralEC2JobTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_ephemeral_ec2.hooks.controller import Controller


class EphemeralEC2Sensor(BaseSensorOperator):
    """
    Wait until a job has succeeded; fail when it has failed for good.

    :param launch: what an ``EphemeralEC2Operator(wait_for_completion=False)`` returned
    :param payer: payer of the job, when there is no ``launch``
    :param job: name of the job, when there is no ``launch``
    :param business_date: as for the operator
    :param deferrable: wait in the triggerer, without a worker slot
    """

    template_fields: Sequence[str] = ("launch", "payer", "job", "business_date")
    ui_color = "#ffcc80"

    def __init__(
        self,
        *,
        launch: Any = None,  # noqa: ANN401 - a mapping or an XComArg
        payer: str | None = None,
        job: str | None = None,
        business_date: str | None = None,
        deferrable: bool = True,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        if launch is None and (payer is None or job is None):
            msg = "EphemeralEC2Sensor: give launch, or payer and job"
            raise ValueError(msg)
        self.launch = launch
        self.payer = payer
        self.job = job
        self.business_date = business_date
        self.deferrable = deferrable
        self._controller: Controller | None = None

    def execute(self, context: Any) -> Any:  # noqa: ANN401
        """Defer, or poke on the worker."""
        if not self.deferrable:
            return super().execute(context)
        try:
            reference = self._reference(context)
        except EphemeralEC2Error as error:
            raise AirflowFailException(str(error)) from None
        self.defer(
            trigger=EphemeralEC2JobTrigger(
                payer=reference.payer,
                job=reference.job,
                business_date=reference.business_date,
                jobkey=reference.jobkey,
                poll_seconds=min(float(self.poke_interval), 15.0),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:  # noqa: ANN401, ARG002
        """End the task as the job ended."""
        event = event or {}
        if "error" in event:
            if event.get("retryable"):
                raise JobEndedError(event["error"], "unknown", retryable=True)
            raise AirflowFailException(event["error"])
        store = open_store(settings_from_airflow())
        outcome = store.read_outcome(event["jobkey"], event["attempt"])
        if outcome is None:
            raise AirflowFailException(f"job {event['jobkey']}: its records have disappeared")
        return self._conclude(outcome, event.get("sentence", ""))

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ANN401
        """Look once, and drive the queue while looking."""
        settings = settings_from_airflow()
        try:
            self._controller = self._controller or open_controller(settings)
            standing = find_standing(self._controller.store, self._reference(context))
            if standing is not None and standing.outcome is None:
                ended = self._controller.follow((standing.name,))
                # Between two pokes others must be able to act.
                self._controller.release()
                if standing.name in ended:
                    standing = find_standing(self._controller.store, self._reference(context))
        except EphemeralEC2Error as error:
            if error.retryable:
                self.log.warning("%s", error)
                return PokeReturnValue(is_done=False)
            raise AirflowFailException(str(error)) from None
        if standing is None or standing.outcome is None or not standing.is_final:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(True, self._conclude(standing.outcome, standing.sentence))

    def _reference(self, context: Any) -> JobReference:  # noqa: ANN401
        if self.launch is not None:
            try:
                return JobReference(
                    self.launch["payer"],
                    self.launch["job"],
                    self.launch["business_date"],
                    self.launch["jobkey"],
                )
            except (KeyError, TypeError) as error:
                msg = (
                    f"launch: expected what EphemeralEC2Operator(wait_for_completion=False) "
                    f"returns, found {type(self.launch).__name__}"
                )
                raise ConfigurationError(msg) from error
        day = find_business_date(self.business_date, context)
        return JobReference(str(self.payer), str(self.job), day)

    def _conclude(self, record: OutcomeRecord, sentence: str) -> dict[str, Any]:
        for line in describe_story(record):
            self.log.info(line)
        self.log.info("outcome: %s", describe_ending(record))
        if record.outcome is Outcome.SUCCEEDED:
            return xcom_of(record)
        if record.outcome is Outcome.SKIPPED:
            raise AirflowSkipException(f"{record.title}: {describe_ending(record)}")
        raise AirflowFailException(describe_failure(record, sentence))
