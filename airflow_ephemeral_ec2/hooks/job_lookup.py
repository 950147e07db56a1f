"""Find a job that was started elsewhere, and how its latest attempt stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.order import DatedKey
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
    is_stale: bool = False
    """A success whose input was written again after it."""

    @property
    def name(self) -> str:
        """Name of the attempt's queue entry."""
        return entry_name(self.jobkey, self.attempt)


def find_standing(
    store: JobStore, reference: JobReference, *, accepts_stale: bool = True
) -> JobStanding | None:
    """
    Look at the latest attempt; None while nobody has asked for the job, or for a part of it.

    Of several runs for one business date a success counts most, one that is not stale before one
    that is, then the one asked for last. Of the parts of an array the one that has come least far
    speaks for all.

    :param accepts_stale: whether a stale success counts more than a run that was asked for later
    """
    if reference.jobkey is not None:
        only = _standing_of(store, reference.jobkey)
        return _note_stale(store, reference, [(0, only)])[0][1] if only else None
    asked = store.find_by_date(reference.payer, reference.job, reference.business_date)
    found = [(entry.array_index, _standing_of(store, entry.jobkey)) for entry in asked]
    parts: dict[int, list[JobStanding]] = {}
    for index, standing in _note_stale(store, reference, [(i, s) for i, s in found if s]):
        parts.setdefault(index, []).append(standing)
    if not parts or len(parts) < max(entry.array_size for entry in asked):
        return None

    def worth(standing: JobStanding) -> tuple[bool, bool, float]:
        is_fresh = _is_success(standing) and not standing.is_stale
        counts = is_fresh or (accepts_stale and _is_success(standing))
        return counts, is_fresh, _requested(store, standing)

    best = [max(runs, key=worth) for runs in parts.values()]
    return min(
        best, key=lambda s: (s.outcome is not None, s.is_final, _is_success(s), not s.is_stale)
    )


def describe_stale(store: JobStore, record: OutcomeRecord) -> str:
    """Say why a success is stale: since when, and by what; empty: it is not."""
    key = DatedKey(record.payer, record.job, record.business_date)
    mark = store.read_stale_mark(key, entry_name(record.jobkey, record.attempt))
    return "" if mark is None else f"{record.title}: succeeded, but is stale: {mark}"


def _note_stale(
    store: JobStore, reference: JobReference, found: list[tuple[int, JobStanding]]
) -> list[tuple[int, JobStanding]]:
    """Note which successes are stale: one listing, where there is a success."""
    if not any(_is_success(standing) for _, standing in found):
        return found
    key = DatedKey(reference.payer, reference.job, reference.business_date)
    stale = store.read_history(key).stale
    return [(index, replace(s, is_stale=_is_success(s) and s.name in stale)) for index, s in found]


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
