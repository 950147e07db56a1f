"""The bucket of record: launch records, queue, start locks, reports, outcomes."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.history_store import HistoryStore
from airflow_ephemeral_ec2.hooks.queue_store import QueueStore
from airflow_ephemeral_ec2.model.identity import PastAttempt
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.plan import LaunchRecord
from airflow_ephemeral_ec2.model.record import OutcomeRecord, write_verdict
from airflow_ephemeral_ec2.model.refusal import Refusal
from airflow_ephemeral_ec2.model.start_lock import parse_start_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ephemeral_ec2.model.outcome import StartLock, Verdict
    from airflow_ephemeral_ec2.model.queue import QueueEntry


class JobStore(QueueStore, HistoryStore):
    """
    One environment in one bucket; every write is conditional.

    :raises AccessError: no permission
    :raises BucketError: no such bucket, or an object in it is not ours to read
    :raises AwsUnavailableError: S3 cannot be asked now
    """

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
        keys = self._list_attempts(jobkey)
        last = self._last_number(jobkey, keys)
        if last is None:
            return None
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

    def last_number(self, jobkey: str) -> int | None:
        """Find the number of the latest attempt, whether or not its record can be read."""
        return self._last_number(jobkey, self._list_attempts(jobkey))

    def _list_attempts(self, jobkey: str) -> set[str]:
        return set(self.list_keys(f"{self.environment}/jobs/{jobkey}/a"))

    def _last_number(self, jobkey: str, keys: set[str]) -> int | None:
        prefix = f"{self.environment}/jobs/{jobkey}/a"
        names = [key.removeprefix(prefix).split("/") for key in keys]
        numbers = [int(n) for n, *rest in names if n.isdecimal() and rest == ["launch.json"]]
        return max(numbers, default=None)

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

    def read_outcome(self, jobkey: str, attempt: int) -> OutcomeRecord | None:
        key = contract.outcome_key(self.environment, jobkey, attempt)
        return self.read_model(key, OutcomeRecord)

    def write_refusal(self, record: LaunchRecord, placement: int, code: str, text: str) -> None:
        """Write down that a placement was definitively refused."""
        refusal = Refusal.of(record, placement, code, text, self.clock.now())
        self.write_new(self._refused_key(record, placement), refusal.model_dump_json().encode())

    def read_refusals(self, record: LaunchRecord) -> dict[int, str]:
        """
        Return placement index -> code of what was definitively refused.

        :raises TamperedObjectError: one of them is not ours; to believe it would pass over a
            placement that may have given a machine
        """
        prefix = contract.attempt_prefix(self.environment, record.jobkey, record.attempt)
        listed = set(self.list_keys(prefix + "refused-"))
        found = {}
        for index in range(len(record.placements)):
            key = self._refused_key(record, index)
            refusal = self.read_model(key, Refusal) if key in listed else None
            if refusal is None:
                continue
            if not refusal.is_of(record, index):
                detail = "the refusal of another attempt or placement."
                raise TamperedObjectError(f"s3://{self.bucket}/{key}", detail)
            found[index] = refusal.code
        return found

    def _refused_key(self, record: LaunchRecord, placement: int) -> str:
        return contract.refused_key(self.environment, record.jobkey, record.attempt, placement)

    # -- start lock and report -------------------------------------------------------------

    def read_earlier(self, jobkey: str, attempt: int) -> list[OutcomeRecord]:
        """Read the outcomes of the attempts before one, as far as they have any."""
        found = (self.read_outcome(jobkey, number) for number in range(1, attempt))
        return [outcome for outcome in found if outcome is not None]

    def read_start_lock(self, record: LaunchRecord | QueueEntry) -> StartLock | None:
        body = self.read_document(self._lock_key(record))
        if body is None:
            return None
        return parse_start_lock(body, record.nonce)

    def revoke_start_lock(
        self, record: LaunchRecord | QueueEntry, reason: str, verdict: Verdict | None = None
    ) -> bool:
        """
        Make sure that no machine starts the work any more; False when one already has.

        :param verdict: how the attempt ends, for whoever has to finish this
        """
        body = {"revoked": reason, "nonce": record.nonce, "at": str(self.clock.now())}
        body |= write_verdict(verdict)
        if self.write_new(self._lock_key(record), json.dumps(body).encode()):
            return True
        lock = self.read_start_lock(record)
        return lock is not None and lock.revoked is not None

    def lock_uri(self, record: LaunchRecord | QueueEntry) -> str:
        """Say where the start lock of an attempt is."""
        return f"s3://{self.bucket}/{self._lock_key(record)}"

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

    def write_heard(self, instance_arn: str, text: str) -> None:
        """Keep what a machine's console said before it was ended, whoever concludes its attempt."""
        self.write_new(self._heard_key(instance_arn), text.encode(), "text/plain; charset=utf-8")

    def read_heard(self, instance_arn: str) -> str:
        """Read what a machine's console said before it was ended; empty when nobody listened."""
        return (self.read(self._heard_key(instance_arn)) or b"").decode(errors="replace")

    def _heard_key(self, instance_arn: str) -> str:
        prefix = contract.machine_prefix(self.environment, instance_arn)
        return f"{prefix}console-before-end.txt"

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
