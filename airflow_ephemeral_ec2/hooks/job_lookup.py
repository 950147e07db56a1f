"""Find a job that was started elsewhere, and how its latest attempt stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.retry import decide_retry

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.record import OutcomeRecord


@dataclass(frozen=True)
class JobReference:
    """A job by its key, or by payer, job and business date."""

    payer: str
    job: str
    business_date: str
    jobkey: str | None = None

    def __str__(self) -> str:
        return f"{self.payer}/{self.job} {self.business_date}"


@dataclass(frozen=True)
class JobStanding:
    """The latest attempt of a job."""

    jobkey: str
    attempt: int
    outcome: OutcomeRecord | None
    """None while the attempt is open."""
    sentence: str = ""
    is_final: bool = False
    """Whether no other attempt will follow."""

    @property
    def name(self) -> str:
        """Name of the attempt's queue entry."""
        return entry_name(self.jobkey, self.attempt)


def find_standing(store: JobStore, reference: JobReference) -> JobStanding | None:
    """
    Look at the latest attempt; None while nobody has asked for the job, or for a part of it.

    Of several runs for one business date a success counts most, then the one asked for last. Of
    the parts of an array the one that has come least far speaks for all.
    """
    if reference.jobkey is not None:
        return _standing_of(store, reference.jobkey)
    asked = store.find_by_date(reference.payer, reference.job, reference.business_date)
    parts: dict[int, list[JobStanding]] = {}
    for entry in asked:
        standing = _standing_of(store, entry.jobkey)
        if standing is not None:
            parts.setdefault(entry.array_index, []).append(standing)
    if not parts or len(parts) < max(entry.array_size for entry in asked):
        return None
    best = [
        max(found, key=lambda s: (_is_success(s), _requested(store, s))) for found in parts.values()
    ]
    return min(best, key=lambda s: (s.outcome is not None, s.is_final, _is_success(s)))


def _standing_of(store: JobStore, jobkey: str) -> JobStanding | None:
    last = store.last_attempt(jobkey)
    if last is None:
        return None
    outcome = store.read_outcome(jobkey, last.attempt) if last.outcome else None
    if outcome is None:
        return JobStanding(jobkey, last.attempt, None)
    launch = store.read_launch(jobkey, last.attempt)
    earlier = store.read_earlier(jobkey, last.attempt)
    retry = decide_retry(launch.spec, outcome, earlier, has_tries_left=launch.may_retry)
    return JobStanding(jobkey, last.attempt, outcome, retry.sentence, not retry.is_allowed)


def _is_success(standing: JobStanding) -> bool:
    return standing.outcome is not None and standing.outcome.outcome == "succeeded"


def _requested(store: JobStore, standing: JobStanding) -> float:
    if standing.outcome is not None:
        return standing.outcome.times.requested
    return store.read_launch(standing.jobkey, standing.attempt).requested_at
