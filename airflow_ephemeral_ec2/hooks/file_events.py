"""From messages to taken files: who takes an object is decided by one conditional write."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, http_status
from airflow_ephemeral_ec2.model.landing import (
    LandedObject,
    Place,
    StoredObject,
    Taken,
    Taking,
    Verdict,
    describe_takings,
    find_file_date,
    judge_event,
    judge_stored,
    read_events,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_s3 import S3Client

    from airflow_ephemeral_ec2.hooks.file_queue import FileQueue
    from airflow_ephemeral_ec2.hooks.landing_records import LandingRecords
    from airflow_ephemeral_ec2.model.landing import Message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DateFiles:
    """The files that a run took for one business date."""

    business_date: str
    count: int
    earlier_runs: int
    """Of this date; more than none: these files are late."""


@dataclass(frozen=True)
class FileGate:
    """
    Takes files for a run: each object once, whatever is delivered, retried or crashes.

    A run first writes down what it wants (so that a retry wants the same), then takes each object
    with a write that only the first one makes, and deletes the messages last. Where others were
    first for all that it wanted, it may want something else: the next of its decisions counts.

    :raises AwsError: S3 or SQS cannot be used; the messages stay and come again
    """

    queue: FileQueue
    records: LandingRecords
    s3: S3Client
    """Reads the bucket where the files land."""
    place: Place

    def resume(self, run: str) -> tuple[DateFiles, ...]:
        """Finish what an earlier try of this run has decided; empty when there is nothing."""
        number = 1
        while (taking := self.records.read_taking(run, number)) is not None:
            if found := self._finish(run, taking):
                return found
            number += 1
        return ()

    def take(self, run: str, messages: Sequence[Message]) -> tuple[DateFiles, ...]:
        """Take what counts of these messages; empty when nothing does, or others were first."""
        wanted, wanted_receipts, done_receipts = self._decide(run, messages)
        if not wanted:
            self.queue.delete(done_receipts)
            return ()
        taking = Taking(objects=wanted, receipts=wanted_receipts)
        found: tuple[DateFiles, ...] = ()
        settled, number = None, 0
        # What others were first for stays theirs, so each try comes to the same decision.
        while not found and settled != taking:
            number += 1
            settled = self.records.settle_taking(run, taking, number)
            found = self._finish(run, settled)
        self.queue.delete(done_receipts)
        return found

    def _decide(
        self, run: str, messages: Sequence[Message]
    ) -> tuple[tuple[Taken, ...], tuple[str, ...], tuple[str, ...]]:
        wanted: dict[str, Taken] = {}
        found: dict[Verdict, list[str]] = defaultdict(list)
        keep: list[str] = []
        done: list[str] = []
        for message in messages:
            events = _read(message)
            for event in events:
                verdict = self._judge(run, event, wanted)
                found[verdict].append(event.digest)
                if verdict is Verdict.TAKEN:
                    day = find_file_date(event)
                    wanted[event.digest] = Taken(digest=event.digest, business_date=day)
            is_wanted = any(event.digest in wanted for event in events)
            (keep if is_wanted else done).append(message.receipt)
        for line in describe_takings(found):
            log.info("%s", line)
        return tuple(wanted.values()), tuple(keep), tuple(done)

    def _judge(self, run: str, event: LandedObject, wanted: dict[str, Taken]) -> Verdict:
        verdict = judge_event(event, self.place)
        if verdict is not Verdict.TAKEN:
            return verdict
        if event.digest in wanted or self.records.find_owner(event.digest) not in (None, run):
            return Verdict.DUPLICATE
        return judge_stored(event, self._look(event))

    def _look(self, event: LandedObject) -> StoredObject | None:
        with aws_call(f"look at a file in s3://{event.bucket}", bucket=event.bucket):
            try:
                found = self.s3.head_object(Bucket=event.bucket, Key=event.key)
            except ClientError as error:
                if http_status(error) == 404:
                    return None
                raise
        etag, version = found["ETag"].strip('"'), found.get("VersionId", "")
        return StoredObject(found["ContentLength"], etag, "" if version == "null" else version)

    def _finish(self, run: str, taking: Taking) -> tuple[DateFiles, ...]:
        counts: dict[str, int] = defaultdict(int)
        for taken in taking.objects:
            if self.records.take(run, taken):
                counts[taken.business_date] += 1
            else:
                log.info("1 object not taken (%s): %s", Verdict.DUPLICATE, taken.digest[:12])
        found = tuple(
            DateFiles(day, count, self.records.note_date(run, day))
            for day, count in sorted(counts.items())
        )
        self.queue.delete(taking.receipts)
        return found


def _read(message: Message) -> tuple[LandedObject, ...]:
    events = read_events(message.body)
    if events is None:
        log.warning("message %s is not an event of S3: deleted", message.message_id)
    return events or ()


def name_run(*facts: str) -> str:
    """Name an Airflow run in keys: by its DAG, its run id, and when it was made."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:40]
