"""EphemeralEC2JobTrigger: a sensor's wait for a job that was started elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.ec2 import open_store
from airflow_ephemeral_ec2.hooks.job_lookup import (
    JobReference,
    JobStanding,
    describe_stale,
    find_standing,
)
from airflow_ephemeral_ec2.triggers.asking import until_answered, until_readable
from airflow_ephemeral_ec2.triggers.resumption import settle
from airflow_ephemeral_ec2.triggers.waiting import controller_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.settings import Settings


class EphemeralEC2JobTrigger(BaseTrigger):
    """
    Wait until a job has ended for good; attempts that will be retried do not count.

    :param payer: payer of the job
    :param job: name of the job
    :param business_date: ``2026-03-01``
    :param jobkey: the job's key, when it is known from its launch
    :param poll_seconds: seconds between two looks while nobody has asked for the job
    :param stale: ``wait``: a success whose input was written again after it does not count; with
        others the sensor decides
    """

    def __init__(
        self,
        payer: str,
        job: str,
        business_date: str,
        jobkey: str | None = None,
        poll_seconds: float = 15.0,
        stale: str = "warn",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow does not annotate triggers
        self.payer = payer
        self.job = job
        self.business_date = business_date
        self.jobkey = jobkey
        self.poll_seconds = poll_seconds
        self.stale = stale

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "airflow_ephemeral_ec2.triggers.job.EphemeralEC2JobTrigger",
            {
                "payer": self.payer,
                "job": self.job,
                "business_date": self.business_date,
                "jobkey": self.jobkey,
                "poll_seconds": self.poll_seconds,
                "stale": self.stale,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the attempt that ended the job, or an error's text."""
        began = time.monotonic()
        try:
            settings = await until_readable(self.log.info)
            standing = await self._wait(settings)
            event = TriggerEvent(
                {
                    "jobkey": standing.jobkey,
                    "attempt": standing.attempt,
                    "sentence": standing.sentence,
                }
            )
        except EphemeralEC2Error as error:
            event = TriggerEvent({"error": str(error), "retryable": error.retryable})
        await settle(self, event, began)
        yield event

    async def _wait(self, settings: Settings) -> JobStanding:
        reference = JobReference(self.payer, self.job, self.business_date, self.jobkey)
        waiting = controller_task(settings)
        told = ""

        def look() -> tuple[JobStanding | None, str]:
            return self._look(open_store(settings), reference)

        while True:
            standing, why = await until_answered(look, self.log.info, self.poll_seconds)
            if why and why != told:
                self.log.info("%s", why)
            told = why
            if standing is not None and standing.outcome is None:
                await waiting.wait(standing.name, self.log.info)
            elif standing is not None and not why:
                return standing
            else:
                await asyncio.sleep(self.poll_seconds)

    def _look(self, store: JobStore, reference: JobReference) -> tuple[JobStanding | None, str]:
        """Return how the job stands, and why that is not its end though nothing is open."""
        standing = find_standing(store, reference, accepts_stale=self.stale == "warn")
        if standing is None:
            return None, f"{reference}: nobody has asked for it yet"
        if standing.outcome is None:
            return standing, ""
        if not standing.is_final:
            return standing, f"{standing.outcome.title}: {standing.sentence}"
        if self.stale == "wait" and standing.is_stale:
            return standing, f"{describe_stale(store, standing.outcome)}; waits for another run"
        return standing, ""
