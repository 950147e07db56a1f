"""Who asks: the task instance behind a job, its key, its attempts."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class TaskIdentity:
    """One task instance of Airflow (or one call of the command line)."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{mapped} {self.run_id}"


def name_jobkey(secret: bytes, environment: str, identity: TaskIdentity) -> str:
    """
    Name the job in the bucket: 40 hex digits that reveal nothing and cannot be guessed.

    Run ids and map indexes may hold PHI, so only their keyed hash leaves Airflow.
    """
    parts = (identity.dag_id, identity.run_id, identity.task_id, str(identity.map_index))
    return _hash(secret, environment, *parts)[:40]


def name_run(secret: bytes, environment: str, identity: TaskIdentity) -> str:
    """Name the DAG run of a job: 16 hex digits, of which nobody learns the run's id."""
    return _hash(secret, environment, identity.dag_id, identity.run_id)[:16]


def _hash(secret: bytes, *parts: str) -> str:
    message = b"\0".join(part.encode() for part in parts)
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def name_client_token(jobkey: str, attempt: int, placement: int, nonce: str) -> str:
    """
    Name one RunInstances call: at most 64 ASCII characters, one per placement.

    Tokens are zonal and bind their parameters (EC2 user guide, "Ensuring idempotency"), so a
    token shared by two placements would break the fallback or launch twice.
    """
    digest = hashlib.sha256(f"{jobkey}|{attempt}|{placement}|{nonce}".encode()).hexdigest()
    return f"ee2-{digest[:56]}"


def entry_name(jobkey: str, attempt: int) -> str:
    """Name the queue entry of an attempt."""
    return f"{jobkey}-a{attempt}"


@dataclass(frozen=True)
class PastAttempt:
    """What the bucket knows about the latest attempt of a job."""

    attempt: int
    epoch: str
    outcome: str | None
    """None while the attempt is open."""


class Step(StrEnum):
    """What a task instance does about its job when it starts."""

    OPEN = "open"
    """Open a new attempt."""
    ADOPT = "adopt"
    """Wait for the open attempt: this is a retry after a crash."""
    SUPERSEDE = "supersede"
    """Kill the open attempt, then open the next: the task was cleared or its run made anew."""
    RETURN = "return"
    """The work is done and Airflow has not been told: return the recorded outcome."""


@dataclass(frozen=True)
class AttemptChoice:
    """The step, and the attempt that it is about."""

    step: Step
    attempt: int


def choose_attempt(
    past: PastAttempt | None, epoch: str, done: Sequence[str] = ("succeeded", "skipped")
) -> AttemptChoice:
    """
    Decide which attempt a starting task instance works on.

    The epoch is the same for all retries of one run of the task; clearing the task or making its
    run anew changes it. A success of the same epoch is never run again.
    """
    if past is None:
        return AttemptChoice(Step.OPEN, 1)
    if past.outcome is None:
        if past.epoch == epoch:
            return AttemptChoice(Step.ADOPT, past.attempt)
        return AttemptChoice(Step.SUPERSEDE, past.attempt + 1)
    if past.epoch == epoch and past.outcome in done:
        return AttemptChoice(Step.RETURN, past.attempt)
    return AttemptChoice(Step.OPEN, past.attempt + 1)
