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
from airflow_ephemeral_ec2.hooks.job_lookup import JobReference, describe_stale, find_standing
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
    from airflow_ephemeral_ec2.hooks.job_store import JobStore

STALE = ("warn", "wait", "fail")


class EphemeralEC2Sensor(BaseSensorOperator):
    """
    Wait until a job has succeeded; fail when it has failed for good.

    :param launch: what an ``EphemeralEC2Operator(wait_for_completion=False)`` returned
    :param payer: payer of the job, when there is no ``launch``
    :param job: name of the job, when there is no ``launch``
    :param business_date: as for the operator
    :param stale: what to do about a success whose input was written again after it: ``warn`` says
        so in the log and in XCom (``stale``) and succeeds; ``wait`` waits until the job has run
        again, with ``launch`` until the same task has; ``fail`` fails
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
        stale: str = "warn",
        deferrable: bool = True,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        if launch is None and (payer is None or job is None):
            msg = "EphemeralEC2Sensor: give launch, or payer and job"
            raise ValueError(msg)
        if stale not in STALE:
            msg = f"EphemeralEC2Sensor: stale={stale!r}: write one of {', '.join(STALE)}"
            raise ValueError(msg)
        self.launch = launch
        self.payer = payer
        self.job = job
        self.business_date = business_date
        self.stale = stale
        self.deferrable = deferrable
        self._controller: Controller | None = None

    def execute(self, context: Any) -> Any:  # noqa: ANN401
        """Defer, or poke on the worker."""
        if not self.deferrable:
            return super().execute(context)
        return self._wait(context)

    def _wait(self, context: Any) -> None:  # noqa: ANN401
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
                stale=self.stale,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """End the task as the job ended, or wait on if its success has become stale since."""
        event = event or {}
        if "error" in event:
            if event.get("retryable"):
                raise JobEndedError(event["error"], "unknown", retryable=True)
            raise AirflowFailException(event["error"])
        store = open_store(settings_from_airflow())
        outcome = store.read_outcome(event["jobkey"], event["attempt"])
        if outcome is None:
            raise AirflowFailException(f"job {event['jobkey']}: its records have disappeared")
        value = self._conclude(store, outcome, event.get("sentence", ""))
        return self._wait(context) if value is None else value

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ANN401
        """Look once, and drive the queue while looking."""
        try:
            value = self._look(context)
        except EphemeralEC2Error as error:
            if error.retryable:
                self.log.warning("%s", error)
                return PokeReturnValue(is_done=False)
            raise AirflowFailException(str(error)) from None
        return PokeReturnValue(value is not None, value)

    def _look(self, context: Any) -> dict[str, Any] | None:  # noqa: ANN401
        self._controller = self._controller or open_controller(settings_from_airflow())
        store, reference = self._controller.store, self._reference(context)
        accepts = self.stale == "warn"
        standing = find_standing(store, reference, accepts_stale=accepts)
        if standing is not None and standing.outcome is None:
            ended = self._controller.follow((standing.name,))
            # Between two pokes others must be able to act.
            self._controller.release()
            if standing.name in ended:
                standing = find_standing(store, reference, accepts_stale=accepts)
        if standing is None or standing.outcome is None or not standing.is_final:
            return None
        return self._conclude(store, standing.outcome, standing.sentence)

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

    def _conclude(
        self, store: JobStore, record: OutcomeRecord, sentence: str
    ) -> dict[str, Any] | None:
        """End as the job ended; None: its success is stale and another one is waited for."""
        stale = describe_stale(store, record) if record.outcome is Outcome.SUCCEEDED else ""
        if stale and self.stale == "wait":
            self.log.warning("%s; waits for another run", stale)
            return None
        for line in describe_story(record):
            self.log.info(line)
        self.log.info("outcome: %s", describe_ending(record))
        if stale and self.stale == "fail":
            raise AirflowFailException(f"{stale}. What to do: run it again (stale='fail')")
        if stale:
            self.log.warning("%s; run it again", stale)
        if record.outcome is Outcome.SUCCEEDED:
            return xcom_of(record) | ({"stale": stale} if stale else {})
        if record.outcome is Outcome.SKIPPED:
            raise AirflowSkipException(f"{record.title}: {describe_ending(record)}")
        raise AirflowFailException(describe_failure(record, sentence))
