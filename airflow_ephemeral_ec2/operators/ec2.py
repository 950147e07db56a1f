"""EphemeralEC2Operator: one job of one payer on its own disposable EC2 instance."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
)

from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error, JobEndedError, ending_error
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, OpenAttempt, open_attempt
from airflow_ephemeral_ec2.hooks.ec2 import connect, open_controller, open_fleet, open_store
from airflow_ephemeral_ec2.hooks.table_source import read_table
from airflow_ephemeral_ec2.links.ec2 import EphemeralEC2InstanceLink, EphemeralEC2LogLink
from airflow_ephemeral_ec2.model.identity import Step
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.record import (
    describe_ending,
    describe_failure,
    describe_story,
    xcom_of,
)
from airflow_ephemeral_ec2.model.retry import decide_retry
from airflow_ephemeral_ec2.model.task_context import (
    PLACE_KEY,
    find_business_date,
    find_deadline,
    find_epoch,
    find_identity,
    has_tries_left,
    is_backfill,
    resolve_table,
)
from airflow_ephemeral_ec2.operators.assets import note_business_date
from airflow_ephemeral_ec2.operators.done_before import find_done_before
from airflow_ephemeral_ec2.operators.killing import (
    WorkerHold,
    end_deferred,
    end_on_worker,
    end_overdue,
)
from airflow_ephemeral_ec2.operators.log_copy import copy_log
from airflow_ephemeral_ec2.operators.run_form import follow_request, read_request
from airflow_ephemeral_ec2.operators.worker_ending import find_worker_reasons
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.triggers.base import BaseTrigger

    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.model.run_request import RunRequest
    from airflow_ephemeral_ec2.model.spec import JobSpec


class EphemeralEC2Operator(BaseOperator):
    """
    Launch exactly the machine that the config table names for a job, and wait for its end.

    The machine runs the row's command once, reports and destroys itself. A retry after a crash
    adopts the running attempt instead of launching a second machine. Killing, clearing or marking
    the task ends the machine.

    :param payer: payer, as in the table
    :param job: job, as in the table
    :param config_table: path of the table; relative to the DAG's file; or an
        ``s3://`` object. Read when the task runs
    :param business_date: ``2026-03-01``; empty: the run's parameter ``business_date``, its
        partition key, its logical date, or ``run_after``, in this order
    :param array_index: which part of a job with ``array_size`` this task is
    :param wait_for_completion: False: succeed as soon as the machine is launched; an
        ``EphemeralEC2Sensor`` can wait for the rest
    :param deferrable: wait in the triggerer, without a worker slot
    """

    template_fields: Sequence[str] = (
        "payer",
        "job",
        "config_table",
        "business_date",
        "array_index",
    )
    operator_extra_links = (EphemeralEC2InstanceLink(), EphemeralEC2LogLink())
    ui_color = "#ff9900"

    def __init__(
        self,
        *,
        payer: str,
        job: str,
        config_table: str,
        business_date: str | None = None,
        array_index: int = 0,
        wait_for_completion: bool = True,
        deferrable: bool = True,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.payer = payer
        self.job = job
        self.config_table = config_table
        self.business_date = business_date
        self.array_index = array_index
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self._hold: WorkerHold | None = None

    def execute(self, context: Any) -> Any:  # noqa: ANN401 - Airflow's Context differs per version
        """
        Open the attempt, then wait for it.

        :raises AirflowFailException: a retry would not help
        :raises AirflowSkipException: the job ended with one of ``skip_exit_codes``, or the run
            leaves it out (``operators/run_form.py``)
        :raises JobEndedError: the attempt failed and another may be tried
        """
        try:
            return self._execute(context)
        except EphemeralEC2Error as error:
            # A later try may have the machine of an earlier one to adopt: it asks once more.
            if error.retryable or (error.may_pass and context["ti"].try_number > 1):
                raise
            # Without the trace of a library: the message says what to do.
            raise AirflowFailException(str(error)) from None

    def _execute(self, context: Any) -> Any:  # noqa: ANN401
        settings = settings_from_airflow()
        path = resolve_table(self.config_table, context)
        table = read_table(path, lambda: connect(settings.aws_conn_id, settings.region).s3)
        request = read_request(context, table.jobs(self.payer))
        order = self._order(context, table, request)
        if request is not None:
            done = find_done_before(context, settings, order)
            follow_request(request, order, table, settings, self.log.info, done)
        store = open_store(settings)
        self._clock = store.clock
        fleet = open_fleet(settings, order.spec.aws_conn_id, order.spec.region)
        hold = WorkerHold(context, secrets.token_hex(8), settings, order)
        self._hold = hold
        hold.opened = opened = open_attempt(store, fleet, order)
        self._announce(hold, opened)
        if opened.choice.step is Step.RETURN:
            return self._finish(context, opened.jobkey, opened.choice.attempt)
        if self.deferrable:
            ends_at = find_deadline(context, self.execution_timeout, store.clock.now())
            self._defer(context, opened, order.spec, ends_at)
        ending = wait_in_this_thread(
            open_controller(settings),
            opened.name,
            self.log.info,
            poll_seconds=settings.poll_seconds,
            until_launch=not self.wait_for_completion,
        )
        if ending.outcome is None:
            return self._launched(context, opened.jobkey, opened.choice.attempt, ending.instance_id)
        return self._finish(context, opened.jobkey, opened.choice.attempt)

    def _order(self, context: Any, table: ConfigTable, request: RunRequest | None) -> LaunchOrder:  # noqa: ANN401
        spec = table.find(self.payer, self.job)
        if request is not None:
            spec = request.apply(spec)
        return LaunchOrder(
            spec=spec,
            lock=table.lock,
            table=str(self.config_table),
            table_version=table.sha256,
            limits=table.limits,
            dependents=table.dependents(self.payer, self.job),
            identity=find_identity(context),
            epoch=find_epoch(context),
            business_date=find_business_date(self.business_date, context),
            array_index=int(self.array_index),
            may_retry=self.wait_for_completion and has_tries_left(context),
            is_awaited=self.wait_for_completion,
            is_retry=self.wait_for_completion and context["ti"].try_number > 1,
            is_backfill=is_backfill(context),
            priority_reason=request.priority_reason if request else "",
            order_override=request.order_override if request else "",
        )

    def _announce(self, hold: WorkerHold, opened: OpenAttempt) -> None:
        settings, spec = hold.settings, hold.order.spec
        place = {
            "environment": settings.environment,
            "bucket": settings.bucket,
            "bucket_region": settings.region,
            "region": spec.region,
            "aws_conn_id": spec.aws_conn_id,
            "jobkey": opened.jobkey,
            "attempt": opened.choice.attempt,
            "holder": hold.holder,
            # For alerts of a task that is ended before it has an outcome.
            "payer": spec.payer,
            "job": spec.job,
            "business_date": hold.order.business_date,
        }
        hold.context["ti"].xcom_push(key=PLACE_KEY, value=place)
        hold.is_announced = True
        if opened.record is None:
            self.log.info("the work was done before this task was told; its outcome stands")
            return
        for line in opened.record.announce(opened.choice.step is Step.ADOPT):
            self.log.info(line)

    def _defer(
        self,
        context: Any,  # noqa: ANN401
        opened: OpenAttempt,
        spec: JobSpec,
        ends_at: float | None,
    ) -> None:
        identity = find_identity(context)
        reasons = find_worker_reasons(self, spec, EphemeralEC2Operator)
        if reasons:
            self.log.info("a worker ends this task, also when it succeeds: %s", ", ".join(reasons))
        self.defer(
            trigger=EphemeralEC2Trigger(
                jobkey=opened.jobkey,
                attempt=opened.choice.attempt,
                aws_conn_id=spec.aws_conn_id,
                region=spec.region,
                until_launch=not self.wait_for_completion,
                kill_on_cancel=self.wait_for_completion,
                end_in_triggerer=not reasons,
                push_result=self.do_xcom_push,
                identity={
                    "dag_id": identity.dag_id,
                    "run_id": identity.run_id,
                    "task_id": identity.task_id,
                    "map_index": identity.map_index,
                },
                ends_at=ends_at,
            ),
            method_name="execute_complete",
        )

    def defer(self, *, trigger: BaseTrigger, timeout: Any = None, **more: Any) -> NoReturn:  # noqa: ANN401
        """Let the trigger mind a timeout, too: Airflow looks for those of deferrals every 15 s."""
        if timeout is not None and isinstance(trigger, EphemeralEC2Trigger):
            trigger.end_within(timeout, self._clock.now())
        super().defer(trigger=trigger, timeout=timeout, **more)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """
        End the task with the outcome that the trigger waited for.

        :raises AirflowTaskTimeout: ``execution_timeout`` is over; Airflow retries as it always does
        """
        event = event or {}
        if event.get("timed_out"):
            attempt = f"{self.payer}/{self.job}, attempt {event['attempt']}"
            limit = self.execution_timeout or "of its deferral"
            raise AirflowTaskTimeout(f"{attempt}: the timeout ({limit}) is over; it was ended")
        if "error" in event:
            if event.get("retryable"):
                raise JobEndedError(event["error"], "unknown", retryable=True)
            raise AirflowFailException(event["error"])
        try:
            if event.get("outcome") is None:
                instance_id = event.get("instance_id")
                return self._launched(context, event["jobkey"], event["attempt"], instance_id)
            return self._finish(context, event["jobkey"], event["attempt"])
        except EphemeralEC2Error as error:
            # The job has ended and its outcome stands: a refusal to read it is tried again, too.
            if error.retryable or error.may_pass:
                raise
            raise AirflowFailException(str(error)) from None

    def _launched(
        self,
        context: Any,  # noqa: ANN401
        jobkey: str,
        attempt: int,
        instance_id: str | None,
    ) -> dict[str, Any]:
        """Return what a sensor needs to wait for the rest."""
        self.log.info("launched %s; not waiting (wait_for_completion=False)", instance_id)
        return {
            "payer": self.payer,
            "job": self.job,
            "business_date": find_business_date(self.business_date, context),
            "jobkey": jobkey,
            "attempt": attempt,
            "instance_id": instance_id,
        }

    def _finish(self, context: Any, jobkey: str, attempt: int) -> dict[str, Any]:  # noqa: ANN401
        store = open_store(settings_from_airflow())
        record = store.read_outcome(jobkey, attempt)
        if record is None:
            msg = f"{self.payer}/{self.job}, attempt {attempt}: its outcome record has disappeared"
            raise JobEndedError(msg, "unknown")
        launch = store.read_launch(jobkey, attempt)
        for line in describe_story(record, launch.spec.log_to_airflow):
            self.log.info(line)
        copy_log(store, record, launch.spec, self.log.info)
        value = xcom_of(record)
        if record.outcome is Outcome.SUCCEEDED:
            self.log.info("outcome: %s", describe_ending(record))
            note_business_date(context, self.outlets, self.payer, launch.business_date)
            return value
        context["ti"].xcom_push(key="return_value", value=value)
        if record.outcome is Outcome.SKIPPED:
            self.log.info("outcome: %s", describe_ending(record))
            raise AirflowSkipException(f"{record.title}: {describe_ending(record)}")
        earlier = store.read_earlier(jobkey, attempt)
        left = has_tries_left(context)
        retry = decide_retry(launch.spec, record, earlier, has_tries_left=left)
        self.log.error("outcome: %s. %s", describe_ending(record), retry.sentence)
        message = describe_failure(record, retry.sentence)
        raise ending_error(record.outcome, message, retryable=retry.is_allowed)

    def on_kill(self) -> None:
        """End the machine when the task is killed while a worker holds it; see ``killing``."""
        if not self.wait_for_completion:
            return
        if self._hold is not None:
            end_on_worker(self._hold)
        else:
            end_overdue()

    def resume_execution(
        self,
        next_method: str,
        next_kwargs: dict[str, Any] | None,
        context: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """
        Resume, and end the machine when the deferral itself has failed.

        A deferral times out here only if the trigger could not mind its timeout: no triggerer had
        it. After another failure of the trigger a retry adopts the attempt, if there is one.
        """
        if next_method == "__fail__":
            reason = str((next_kwargs or {}).get("error", ""))
            is_final = "timeout" in reason.lower() or not has_tries_left(context)
            if is_final and self.wait_for_completion:
                end_deferred(context, reason)
        return super().resume_execution(next_method, next_kwargs, context)
