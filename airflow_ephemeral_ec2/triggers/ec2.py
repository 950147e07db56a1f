"""EphemeralEC2Trigger: a deferred task's wait for the outcome of its attempt."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_ephemeral_ec2.exceptions import AwsError, EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.hooks.ec2 import open_fleet, open_store
from airflow_ephemeral_ec2.model.identity import TaskIdentity, entry_name
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome
from airflow_ephemeral_ec2.model.record import describe_ending, describe_story, xcom_of
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers.asking import until_answered, until_readable
from airflow_ephemeral_ec2.triggers.kills import begin_kill
from airflow_ephemeral_ec2.triggers.outage import Outage
from airflow_ephemeral_ec2.triggers.pulse import SILENCE_SECONDS, pulse
from airflow_ephemeral_ec2.triggers.resumption import settle
from airflow_ephemeral_ec2.triggers.state_line import StateLine, write_state
from airflow_ephemeral_ec2.triggers.task_state import ask_within, is_abandoned, read_task_state
from airflow_ephemeral_ec2.triggers.waiting import controller_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.settings import Settings
    from airflow_ephemeral_ec2.triggers.waiting import Ending

HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""Airflow 3.3 tells a trigger that its task was killed; before, it only cancels it."""

USER_ACTION = "__airflow_user_action__"
"""What Airflow >= 3.3 cancels a trigger with whose task was marked, cleared or deleted
(``_USER_ACTION_CANCEL_MSG`` in ``triggerer_job_runner``)."""


class EphemeralEC2Trigger(BaseTrigger):
    """
    Wait for an attempt; while waiting, drive the queue, the launches and the endings.

    Everything about the attempt is in the bucket, so this carries names only.

    :param jobkey: the job's key in the bucket
    :param attempt: number of the attempt
    :param aws_conn_id: connection that reaches the machine, to end it when the task is killed
    :param region: region of the machine
    :param until_launch: wait only until the machine is launched
    :param kill_on_cancel: end the attempt when the task is marked, cleared or deleted
    :param ends_at: when the timeout of the task or of its deferral is over (seconds since 1970,
        bucket's clock); the attempt is ended then. Airflow 3 has no eye on a deferred task's timeout
        (``task_runner._run_execute_callable``: "TODO: handle timeout in case of deferral")
    :param end_in_triggerer: finish a successful task here, without a worker
    :param push_result: push the result as XCom when the task is finished here
    :param identity: dag_id, run_id, task_id and map_index of the task instance
    """

    def __init__(
        self,
        jobkey: str,
        attempt: int,
        aws_conn_id: str,
        region: str,
        *,
        until_launch: bool = False,
        kill_on_cancel: bool = True,
        end_in_triggerer: bool = False,
        push_result: bool = True,
        identity: dict[str, Any] | None = None,
        ends_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow does not annotate triggers
        self.jobkey = jobkey
        self.attempt = attempt
        self.aws_conn_id = aws_conn_id
        self.region = region
        self.until_launch = until_launch
        self.kill_on_cancel = kill_on_cancel
        self.end_in_triggerer = end_in_triggerer
        self.push_result = push_result
        self.identity = identity or {}
        self.ends_at = ends_at
        self._is_in_doubt = False
        self._killing: asyncio.Future[Exception | None] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_ephemeral_ec2.triggers.ec2.EphemeralEC2Trigger",
            {
                "jobkey": self.jobkey,
                "attempt": self.attempt,
                "aws_conn_id": self.aws_conn_id,
                "region": self.region,
                "until_launch": self.until_launch,
                "kill_on_cancel": self.kill_on_cancel,
                "end_in_triggerer": self.end_in_triggerer,
                "push_result": self.push_result,
                "identity": self.identity,
                "ends_at": self.ends_at,
            },
        )

    def end_within(self, timeout: timedelta | float, now: float) -> None:
        """
        End the attempt after so many seconds, if it is to be ended no earlier.

        :param now: bucket's clock
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self.ends_at = min(self.ends_at or math.inf, now + seconds)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: names of the attempt and of its outcome, or an error's text."""
        began = time.monotonic()
        try:
            with pulse().felt(self._ask_airflow if self._has_task else None):
                event = await self._wait()
        except asyncio.CancelledError as cancelled:
            self._is_in_doubt = pulse().is_in_doubt()
            if cancelled.args == (USER_ACTION,):
                # Before it calls ``on_kill`` Airflow writes a log line, and a second cancellation
                # in this moment is the end of both.
                self._begin_kill()
            if not HAS_ON_KILL:
                await self._kill_if_abandoned()
            raise
        except EphemeralEC2Error as error:
            event = TriggerEvent({"error": str(error), "retryable": error.retryable})
        await settle(self, event, began)
        yield event

    async def _wait(self) -> TriggerEvent:
        settings = await until_readable(self.log.info)
        left = await until_answered(
            functools.partial(self._seconds_left, settings), self.log.info, settings.poll_seconds
        )
        execution_timeout = asyncio.timeout(left)
        try:
            async with execution_timeout:
                ending = await self._ending(settings)
        except TimeoutError:
            if not execution_timeout.expired():
                raise
            if await self._end_overdue(settings):
                return TriggerEvent(
                    {"jobkey": self.jobkey, "attempt": self.attempt, "timed_out": True}
                )
            # It came to its end in the same moment.
            ending = await self._ending(settings)
        # In dag.test() there is no task instance and nobody to end it but the worker.
        may_end = self.end_in_triggerer and getattr(self, "task_instance", None) is not None
        record = ending.outcome
        if record is not None and record.outcome is Outcome.SUCCEEDED and may_end:
            for line in (*describe_story(record), f"outcome: {describe_ending(record)}"):
                self.log.info(line)
            xcoms = {"return_value": xcom_of(record)} if self.push_result else None
            return TaskSuccessEvent(xcoms=xcoms)
        return TriggerEvent(
            {
                "jobkey": self.jobkey,
                "attempt": self.attempt,
                "outcome": record.outcome.value if record else None,
                "instance_id": ending.instance_id,
            }
        )

    async def _ending(self, settings: Settings) -> Ending:
        """Log the story, and show its newest line as the state of the task while it waits."""
        name = entry_name(self.jobkey, self.attempt)
        waiting = controller_task(settings)
        # In dag.test() there is no task instance to show anything of.
        if getattr(self, "task_instance", None) is None or not self.identity:
            return await waiting.wait(name, self.log.info, until_launch=self.until_launch)
        state = StateLine(functools.partial(write_state, TaskIdentity(**self.identity)))

        def tell(line: str) -> None:
            self.log.info(line)
            state.tell(line)

        async with state.showing():
            return await waiting.wait(name, tell, until_launch=self.until_launch)

    def _seconds_left(self, settings: Settings) -> float | None:
        """Return the seconds of the execution_timeout that are left; None without one."""
        if self.ends_at is None:
            return None
        store = open_store(settings)
        # Its first answer sets the clock. What is over already is told, however late it is.
        is_over = store.read_outcome(self.jobkey, self.attempt) is not None
        return None if is_over else max(self.ends_at - store.clock.now(), 0.0)

    async def _end_overdue(self, settings: Settings) -> bool:
        """End the attempt whose time is over; False when it has ended by itself."""
        if not self.kill_on_cancel:
            return True
        kill, outage = Kill("execution_timeout", by="Airflow"), Outage()
        while True:
            try:
                return await asyncio.to_thread(self._kill, settings, kill)
            except AwsError as error:
                if not error.may_pass:
                    raise
                for line in outage.note(error):
                    self.log.warning("execution_timeout is over; %s", line)
                await asyncio.sleep(settings.poll_seconds)

    def _kill(self, settings: Settings, kill: Kill) -> bool:
        fleet = open_fleet(settings, self.aws_conn_id, self.region)
        return kill_attempt(open_store(settings), fleet, self.jobkey, self.attempt, kill)

    async def on_kill(self) -> None:
        """End the attempt when the user ended the task (Airflow >= 3.3)."""
        await self._kill_if_abandoned()

    async def _kill_if_abandoned(self) -> None:
        kill = self._begin_kill()
        if kill is not None:
            # Airflow cancels again a second later, whatever the trigger is doing (``to_cancel`` in
            # ``triggerer_job_runner``): a kill that still waits for a thread must not be lost by it.
            await asyncio.shield(kill)

    def _begin_kill(self) -> asyncio.Future[Exception | None] | None:
        """Let a thread end the attempt if nobody wants it any more; once, however often called."""
        if not (self.kill_on_cancel and self.identity):
            return None
        if self._killing is None:
            heart = pulse()

            def again() -> None:
                # Minutes later, who knows less knows less: another triggerer may have it since.
                self._is_in_doubt = self._is_in_doubt or heart.is_in_doubt()
                self._kill_unless_deferred()

            self._killing = begin_kill(self._kill_unless_deferred, again)
        return self._killing

    @property
    def _has_task(self) -> bool:
        """Whether a task instance is behind this trigger; ``dag.test()`` has none."""
        return bool(self.identity) and getattr(self, "task_instance", None) is not None

    def _ask_airflow(self) -> object:
        return ask_within(SILENCE_SECONDS, self._read_task_state)

    def _read_task_state(self) -> str:
        return read_task_state(TaskIdentity(**self.identity))

    def _kill_unless_deferred(self) -> None:
        # Asked in each try. What raises is unknown, which is no reason to kill but one to ask again.
        state = self._read_task_state()
        settings = settings_from_airflow()
        store = open_store(settings)
        if not is_abandoned(state, is_in_doubt=self._is_in_doubt) and not self._is_replaced(store):
            return
        if self._kill(settings, Kill("cancelled", by=f"Airflow (task {state})")):
            self.log.warning("task is %s: ending attempt %s", state, self.attempt)

    def _is_replaced(self, store: JobStore) -> bool:
        last = store.last_attempt(self.jobkey)
        return last is not None and last.attempt > self.attempt
