"""What the reaper's task tells people of: orphans, long waits, a quota that is used up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.links.ec2 import log_url
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.notifications.alerts import ORPHAN, QUOTA, WAITING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.queue import QueueEntry
    from airflow_ephemeral_ec2.model.reap import Finding

log = logging.getLogger(__name__)
NOBODY = dict.fromkeys(("payer", "job", "business_date", "attempt", "outcome", "job_link"))


@dataclass(frozen=True)
class News:
    """
    Makes the payloads of alerts from what the bucket says.

    :param region: of the bucket
    """

    store: JobStore
    region: str

    def of_orphan(self, orphan: Finding, region: str) -> dict[str, Any]:
        """Describe an orphan; payer, job and date as far as tags and bucket know them."""
        machine = orphan.machine
        record = self._record_of(machine.jobkey, machine.attempt) if machine else None
        attempt = machine.attempt if machine else ""
        return NOBODY | {
            "event": ORPHAN,
            "payer": (machine.payer or None) if machine else None,
            "job": (machine.job or None) if machine else None,
            "business_date": record.business_date if record else None,
            "attempt": int(attempt) if attempt.isdecimal() else None,
            "reason": f"{orphan.resource_id} in {region}: {orphan.detail}",
            "job_link": self._link(record.jobkey, record.attempt) if record else None,
        }

    def of_long_waits(self, longer_than: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        Yield the title and the payload of each attempt that waits too long, once in its life.

        :param longer_than: seconds
        :raises AwsError: the bucket cannot be read
        """
        notes = ReaperStore(self.store, self.store.environment)
        now, states = self.store.clock.now(), self.store.read_state()[0].entries
        for name in sorted(self.store.list_queue().entries):
            state, entry = states.get(name), self.store.read_entry(name)
            is_waiting = state is None or state.stage is not Stage.LAUNCHED
            if entry is None or not is_waiting:
                continue
            waited = now - entry.requested_at
            if waited > longer_than and notes.tell_once(name):
                yield entry.title, self._of_wait(entry, waited)

    def of_quotas(self) -> Iterator[dict[str, Any]]:
        """
        Yield a payload for each quota of the account that holds launches up, once a day.

        :raises AwsError: the bucket cannot be read
        """
        notes = ReaperStore(self.store, self.store.environment)
        now = self.store.clock.now()
        day = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
        for name, refusal in self.store.read_state()[0].unavailable.items():
            place, is_quota, what = name.rpartition("/quota/")
            if not is_quota or refusal.until <= now:
                continue
            family, _, market = what.partition("/")
            if notes.tell_once(f"quota/{place}/{family}/{market}/{day}"):
                region = place.rpartition("/")[2]
                yield NOBODY | {
                    "event": QUOTA,
                    "reason": f"the {market} vCPU quota of {family} instances in {region} is "
                    f"reached ({refusal.code}): jobs wait; raise it in Service Quotas",
                }

    def _of_wait(self, entry: QueueEntry, waited: float) -> dict[str, Any]:
        return NOBODY | {
            "event": WAITING,
            "payer": entry.payer,
            "job": entry.job,
            "business_date": entry.business_date,
            "attempt": entry.attempt,
            "reason": f"waits for {format_duration(waited)} to be launched",
            "job_link": self._link(entry.jobkey, entry.attempt),
        }

    def _link(self, jobkey: str, attempt: int) -> str:
        return log_url(
            {
                "environment": self.store.environment,
                "bucket": self.store.bucket,
                "bucket_region": self.region,
                "jobkey": jobkey,
                "attempt": attempt,
            }
        )

    def _record_of(self, jobkey: str, attempt: str) -> LaunchRecord | None:
        """Read a launch record, where the bucket can be read and has it."""
        if not (jobkey.isalnum() and attempt.isdecimal()):
            return None
        try:
            return self.store.read_launch(jobkey, int(attempt))
        except EphemeralEC2Error as error:
            log.info("no more is known of the orphan's attempt: %s", error)
            return None
