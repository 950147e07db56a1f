"""The bucket of record: launch records, queue, start locks, reports, outcomes."""

from __future__ import annotations

import json
import logging
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import AwsError, TamperedObjectError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, http_status
from airflow_ephemeral_ec2.hooks.bucket import CHECKSUM, MAX_DOCUMENT_BYTES, Bucket
from airflow_ephemeral_ec2.model.admission import QueueEntry, QueueState
from airflow_ephemeral_ec2.model.identity import PastAttempt, entry_name
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome, StartLock
from airflow_ephemeral_ec2.model.plan import LaunchRecord
from airflow_ephemeral_ec2.model.record import OutcomeRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)
_KILL_SUFFIX = ".kill"
_DATED = re.compile(r"([0-9A-Za-z-]+)(?:\.([0-9]{1,9})of([0-9]{1,9}))?")


@dataclass(frozen=True)
class QueueListing:
    """One look at the queue prefix."""

    entries: frozenset[str]
    kills: frozenset[str]


@dataclass(frozen=True)
class DatedJob:
    """One job (or part of an array) that was asked for, for a business date."""

    jobkey: str
    array_index: int
    array_size: int


class JobStore(Bucket):
    """
    One environment in one bucket; every write is conditional.

    :raises AccessError: no permission
    :raises BucketError: no such bucket, or an object in it is not ours to read
    :raises AwsUnavailableError: S3 cannot be asked now
    """

    def __init__(self, s3: S3Client, bucket: str, environment: str) -> None:
        super().__init__(s3, bucket)
        self.environment = environment

    # -- the environment -------------------------------------------------------------------

    def read_secret(self) -> bytes:
        """Return the key that hashes job keys; the first caller of an environment makes it."""
        key = f"{self.environment}/environment.json"
        body = self.read_document(key)
        if body is None:
            body = json.dumps({"version": 1, "jobkey_secret": secrets.token_hex(32)}).encode()
            if not self.write_new(key, body):
                body = self.read_document(key) or b"{}"
        try:
            return bytes.fromhex(json.loads(body)["jobkey_secret"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            detail = "not the environment's secret; without it no attempt can be found."
            raise TamperedObjectError(f"s3://{self.bucket}/{key}", detail) from error

    # -- attempts --------------------------------------------------------------------------

    def last_attempt(self, jobkey: str) -> PastAttempt | None:
        """Find the latest attempt of a job: one listing and at most two reads."""
        prefix = f"{self.environment}/jobs/{jobkey}/a"
        keys = set(self.list_keys(prefix))
        names = [key.removeprefix(prefix).split("/") for key in keys]
        numbers = [int(n) for n, *rest in names if n.isdecimal() and rest == ["launch.json"]]
        if not numbers:
            return None
        last = max(numbers)
        outcome = None
        if contract.outcome_key(self.environment, jobkey, last) in keys:
            outcome = self.read_outcome(jobkey, last)
        try:
            epoch = self.read_launch(jobkey, last).epoch
        except TamperedObjectError:
            # Ended because of that; who has cleared the task since wants the next attempt.
            if outcome is None or outcome.outcome is not Outcome.TAMPERED:
                raise
            epoch = ""
        return PastAttempt(last, epoch, None if outcome is None else outcome.outcome)

    def write_launch(self, record: LaunchRecord) -> LaunchRecord:
        """Freeze a launch record and return the winning one: ours, or who was first."""
        key = contract.launch_key(self.environment, record.jobkey, record.attempt)
        if self.write_new(key, record.model_dump_json().encode()):
            return record
        return self.read_launch(record.jobkey, record.attempt)

    def read_launch(self, jobkey: str, attempt: int) -> LaunchRecord:
        key = contract.launch_key(self.environment, jobkey, attempt)
        record = self.read_model(key, LaunchRecord)
        if record is None:
            raise TamperedObjectError(f"s3://{self.bucket}/{key}", "the launch record is missing.")
        if (record.jobkey, record.attempt) != (jobkey, attempt):
            detail = "the launch record of another attempt."
            raise TamperedObjectError(f"s3://{self.bucket}/{key}", detail)
        return record

    def write_outcome(self, record: OutcomeRecord) -> OutcomeRecord:
        """Record the outcome and return the winning one."""
        key = contract.outcome_key(self.environment, record.jobkey, record.attempt)
        winner = record
        if not self.write_new(key, record.model_dump_json().encode()):
            winner = self.read_outcome(record.jobkey, record.attempt) or record
        # Again also by those who were second: the first may have died between the two writes.
        self.write_history(winner)
        return winner

    def write_history(self, record: OutcomeRecord) -> None:
        """Write the one small record of a finished attempt; again is harmless."""
        day = record.business_date
        name = f"{entry_name(record.jobkey, record.attempt)}-{record.outcome}.json"
        key = f"{self.environment}/history/{record.payer}/{record.job}/{day}/{name}"
        self.write_new(key, record.model_dump_json(exclude={"result"}).encode())

    def read_outcome(self, jobkey: str, attempt: int) -> OutcomeRecord | None:
        key = contract.outcome_key(self.environment, jobkey, attempt)
        return self.read_model(key, OutcomeRecord)

    def write_refusal(self, record: LaunchRecord, placement: int, code: str, text: str) -> None:
        """Write down that a placement was definitively refused."""
        key = contract.refused_key(self.environment, record.jobkey, record.attempt, placement)
        body = {
            "placement": str(record.placements[placement]),
            "code": code,
            "message": text,
            "at": self.clock.now(),
        }
        self.write_new(key, json.dumps(body).encode())

    def read_refusals(self, record: LaunchRecord) -> dict[int, str]:
        """Return placement index -> code of what was definitively refused; unreadable is refused."""
        prefix = contract.attempt_prefix(self.environment, record.jobkey, record.attempt)
        found = {}
        for key in list(self.list_keys(prefix + "refused-")):
            number = key.rpartition("-")[2].removesuffix(".json")
            if number.isdigit():
                found[int(number)] = str(_read_json(self.read_document(key)).get("code", "unknown"))
        return found

    # -- start lock and report -------------------------------------------------------------

    def read_start_lock(self, record: LaunchRecord | QueueEntry) -> StartLock | None:
        body = self.read_document(self._lock_key(record))
        if body is None:
            return None
        found = _read_json(body)
        instance_id, revoked = found.get("instance_id"), found.get("revoked")
        known = (instance_id or revoked) and all(isinstance(v, str | None) for v in found.values())
        if known and found.get("nonce", record.nonce) == record.nonce:
            return StartLock(instance_id, revoked, arn=found.get("arn") or "")
        return StartLock(None, None, is_foreign=True)

    def revoke_start_lock(self, record: LaunchRecord | QueueEntry, reason: str) -> bool:
        """Make sure that no machine starts the work any more; False when one already has."""
        body = {"revoked": reason, "nonce": record.nonce, "at": str(self.clock.now())}
        if self.write_new(self._lock_key(record), json.dumps(body).encode()):
            return True
        lock = self.read_start_lock(record)
        return lock is not None and lock.revoked is not None

    def _lock_key(self, record: LaunchRecord | QueueEntry) -> str:
        return contract.start_lock_key(
            self.environment, record.jobkey, record.attempt, record.nonce
        )

    def read_report(self, instance_arn: str) -> bytes | None:
        return self.read_document(contract.report_key(self.environment, instance_arn))

    def write_console(self, instance_arn: str, text: str) -> None:
        """Keep a machine's console output beside its log."""
        key = contract.console_key(self.environment, instance_arn)
        self.write_new(key, text.encode(), "text/plain; charset=utf-8")

    def read_log(self, instance_arn: str) -> Iterator[bytes]:
        """Read the job's output, chunk by chunk."""
        prefix = contract.machine_prefix(self.environment, instance_arn) + "log/"
        for key in sorted(self.list_keys(prefix)):
            yield self.read(key) or b""

    def read_log_end(self, instance_arn: str, limit_bytes: int) -> bytes:
        """Read the end of the job's output: at least ``limit_bytes`` of it, in whole chunks."""
        prefix = contract.machine_prefix(self.environment, instance_arn) + "log/"
        chunks: list[bytes] = []
        for key in sorted(self.list_keys(prefix), reverse=True):
            chunks.insert(0, self.read(key) or b"")
            if sum(map(len, chunks)) >= limit_bytes:
                break
        return b"".join(chunks)

    # -- the queue -------------------------------------------------------------------------

    def write_entry(self, entry: QueueEntry) -> None:
        self.write_new(self._entry_key(entry.name), entry.model_dump_json().encode())

    def read_entry(self, name: str) -> QueueEntry | None:
        return self.read_model(self._entry_key(name), QueueEntry)

    def list_queue(self) -> QueueListing:
        prefix = f"{self.environment}/queue/"
        names = [key.removeprefix(prefix).removesuffix(".json") for key in self.list_keys(prefix)]
        kills = {n.removesuffix(_KILL_SUFFIX) for n in names if n.endswith(_KILL_SUFFIX)}
        return QueueListing(
            frozenset(n for n in names if not n.endswith(_KILL_SUFFIX)), frozenset(kills)
        )

    def close_entry(self, name: str) -> None:
        """Take an attempt out of the queue; only after its outcome is recorded."""
        for key in (self._entry_key(name), self._entry_key(name + _KILL_SUFFIX)):
            with aws_call(f"delete s3://{self.bucket}/{key}", bucket=self.bucket):
                self.s3.delete_object(Bucket=self.bucket, Key=key)

    def write_kill(self, name: str, kill: Kill) -> None:
        """Ask for the end of an attempt; the controller finds it when it lists the queue."""
        body = {"reason": kill.reason, "by": kill.by, "at": self.clock.now()}
        self.write_new(self._entry_key(name + _KILL_SUFFIX), json.dumps(body).encode())

    def read_kill(self, name: str) -> Kill | None:
        body = self.read_document(self._entry_key(name + _KILL_SUFFIX))
        if body is None:
            return None
        found = _read_json(body)
        if "reason" not in found:
            return Kill("cancelled", by="a kill request that cannot be read")
        return Kill(str(found["reason"]), str(found.get("by", "")))

    def _entry_key(self, name: str) -> str:
        return f"{self.environment}/queue/{name}.json"

    def read_state(self) -> tuple[QueueState, str | None]:
        """
        Return the queue state and its ETag (None before the first write).

        One that cannot be read is an empty one that must be rebuilt from entries and EC2.
        """
        found = self.read_tagged(self._state_key, MAX_DOCUMENT_BYTES)
        if found is None:
            return QueueState(), None
        try:
            return QueueState.model_validate_json(found[0]), found[1]
        except ValidationError:
            return QueueState(is_rebuilt=True), found[1]

    def write_state(self, state: QueueState, etag: str | None) -> str | None:
        """
        Write the queue state if nobody else did since ``etag``; None when somebody was first.

        After a lost answer the revision, the writer's own nonce, tells that the write was ours.
        """
        state = state.model_copy(update={"revision": secrets.token_hex(16)})
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        body = state.model_dump_json(exclude_defaults=True).encode()
        try:
            with aws_call(f"write s3://{self.bucket}/{self._state_key}", bucket=self.bucket):
                answer = self.s3.put_object(
                    Bucket=self.bucket,
                    Key=self._state_key,
                    Body=body,
                    ChecksumAlgorithm=CHECKSUM,
                    **condition,  # type: ignore[arg-type]  # one of two optional arguments
                )
        except AwsError as error:
            return self._own_revision(state, error)
        self.observe(answer)
        return answer["ETag"]

    def _own_revision(self, state: QueueState, error: AwsError) -> str | None:
        cause = error.__cause__
        lost = not isinstance(cause, ClientError) or http_status(cause) >= 500
        raced = isinstance(cause, ClientError) and http_status(cause) in (409, 412, 404)
        if not (lost or raced):
            raise error
        found, etag = self.read_state()
        return etag if found.revision == state.revision else None

    @property
    def _state_key(self) -> str:
        return f"{self.environment}/queue-state.json"

    # -- by date ---------------------------------------------------------------------------

    def write_date_index(self, record: LaunchRecord) -> None:
        """Let the sensor find the job by payer, job and business date."""
        spec = record.spec
        # Only the parts of an array need to say which part they are.
        part = f".{record.array_index}of{spec.array_size}" if spec.array_size > 1 else ""
        prefix = self._date_prefix(spec.payer, spec.job, record.business_date)
        key = f"{prefix}{record.jobkey}{part}"
        body = {"jobkey": record.jobkey, "requested_at": record.requested_at}
        self.write_new(key, json.dumps(body).encode())

    def find_by_date(self, payer: str, job: str, business_date: str) -> tuple[DatedJob, ...]:
        """Return what was asked for, for one payer, job and business date."""
        prefix = self._date_prefix(payer, job, business_date)
        found = []
        for key in self.list_keys(prefix):
            match = _DATED.fullmatch(key.removeprefix(prefix))
            if match is None:
                log.warning("s3://%s/%s is not ours; passed over", self.bucket, key)
                continue
            jobkey, index, size = match.groups()
            found.append(DatedJob(jobkey, int(index or 0), int(size or 1)))
        return tuple(found)

    def _date_prefix(self, payer: str, job: str, business_date: str) -> str:
        return f"{self.environment}/by-date/{payer}/{job}/{business_date}/"


def _read_json(body: bytes | None) -> dict[str, Any]:
    """Read an object that others may have written: what is no JSON object says nothing."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
