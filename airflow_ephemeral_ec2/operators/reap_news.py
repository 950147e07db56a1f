"""What the reaper's task tells people of: orphans, long waits, a quota that is used up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error, TamperedObjectError
from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.links.ec2 import log_url
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.queue_view import QueueView, view_queue
from airflow_ephemeral_ec2.model.wait_text import explain_wait
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

        Why it waits is only looked up where somebody is told.

        :param longer_than: seconds
        :raises AwsError: the bucket cannot be read
        """
        notes, reasons = ReaperStore(self.store, self.store.environment), WaitReasons(self.store)
        state, _ = self.store.read_state()
        now = self.store.clock.now()
        for name in sorted(self.store.list_queue().entries):
            known = state.entries.get(name)
            if known is not None and known.stage is Stage.LAUNCHED:
                continue
            entry = self._read_entry(name)
            if entry is None or now - entry.requested_at <= longer_than:
                continue
            if state.is_rebuilt and self._has_begun(entry):
                continue
            if notes.tell_once(name):
                yield entry.title, self._of_wait(entry, now, reasons.of(entry))

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

    def _read_entry(self, name: str) -> QueueEntry | None:
        """Read an entry; one that cannot be read must not hide the others that wait."""
        try:
            return self.store.read_entry(name)
        except TamperedObjectError as error:
            log.warning("it is not known for how long %s waits: %s", name, error)
            return None

    def _has_begun(self, entry: QueueEntry) -> bool:
        """Ask a machine's own mark: a queue state that was lost knows of no launch."""
        lock = self.store.read_start_lock(entry)
        return lock is not None and lock.instance_id is not None

    def _of_wait(self, entry: QueueEntry, now: float, why: str) -> dict[str, Any]:
        waited = format_duration(now - entry.requested_at)
        return NOBODY | {
            "event": WAITING,
            "payer": entry.payer,
            "job": entry.job,
            "business_date": entry.business_date,
            "attempt": entry.attempt,
            "reason": f"waits for {waited} to be launched: {why}",
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


class WaitReasons:
    """Why attempts wait; the queue is read when the first one is asked for, and once."""

    def __init__(self, store: JobStore) -> None:
        self._reader = QueueReader(store)
        self._is_unreadable = False

    def of(self, entry: QueueEntry) -> str:
        """Say it in one line; that it cannot be known is no reason not to tell of the wait."""
        if not self._is_unreadable:
            try:
                return explain_wait(self._view, entry.name, self._read_refused(entry))
            except EphemeralEC2Error as error:
                # Not again for each of a thousand that wait.
                self._is_unreadable = True
                log.warning("why %s and others wait cannot be read: %s", entry.title, error)
        return "the queue cannot be read, see the reaper's log"

    @cached_property
    def _view(self) -> QueueView:
        return view_queue(self._reader.read())

    def _read_refused(self, entry: QueueEntry) -> list[str]:
        if entry.name in self._view.admission.waiting:
            return []  # EC2 has not been asked: something else holds it up
        try:
            refused = self._reader.read_refused(entry, self._view.snapshot)
        except TamperedObjectError as error:
            log.warning("what EC2 has refused to %s is not known: %s", entry.title, error)
            return []
        return [f"{what} ({found.code})" for what, found in refused.items()]
