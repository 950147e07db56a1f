"""Order inside a payer, across runs: what a job must wait for before it may be admitted."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.queue import QueueEntry

_FINISHED = re.compile(r"([0-9a-zA-Z]+)-a([0-9]{1,9})-([a-z_]+)\.json")
_STALE = re.compile(r"([0-9a-zA-Z]+-a[0-9]{1,9})\.stale\.json")


@dataclass(frozen=True, order=True)
class DatedKey:
    """One job of one payer for one business date."""

    payer: str
    job: str
    business_date: str

    def __str__(self) -> str:
        return f"{self.payer}/{self.job} {self.business_date}"

    @classmethod
    def of(cls, entry: QueueEntry) -> "DatedKey":
        """Name what an attempt is of."""
        return cls(entry.payer, entry.job, entry.business_date)


@dataclass(frozen=True)
class DatedJob:
    """One job (or part of an array) that was asked for, for a business date."""

    jobkey: str
    array_index: int
    array_size: int


@dataclass(frozen=True)
class FinishedAttempt:
    """One attempt that has an outcome, as the names of the history say."""

    jobkey: str
    attempt: int
    outcome: str

    @property
    def name(self) -> str:
        return f"{self.jobkey}-a{self.attempt}"


@dataclass(frozen=True)
class History:
    """What has come of one job of one payer for one business date."""

    finished: tuple[FinishedAttempt, ...] = ()
    stale: frozenset[str] = frozenset()
    """Names of attempts whose input was written again after them."""


@dataclass(frozen=True)
class Staleness:
    """What the success of one attempt says about what was made of older input."""

    makes_stale: tuple[DatedKey, ...] = ()
    """Jobs with a success that was made of what this attempt has written again."""
    stale_inputs: tuple[DatedKey, ...] = ()
    """What this attempt depends on and what was not, or not any more, up to date while it ran."""


NOTHING_STALE = Staleness()


@dataclass(frozen=True)
class StaleMark:
    """What has written the input of a success again, and when that was noticed."""

    by: str
    at: float | None
    """Bucket's clock, seconds since 1970."""

    def __str__(self) -> str:
        when = (
            "" if self.at is None else f", {datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%MZ}"
        )
        return f"its input was written again by {self.by}{when}"


@dataclass(frozen=True)
class Recorded:
    """How one job of one payer stands for one business date, in whatever run."""

    has_succeeded: bool
    is_stale: bool = False
    """What it depends on has run again after its success."""
    text: str = ""
    """Why there is no success, for people."""
    had_nothing_to_do: bool = False
    """It has skipped itself in every run, in all of its parts."""


def parse_history(names: Iterable[str]) -> History:
    """Read the names of the history records of one job and date; others are passed over."""
    finished, stale = [], set()
    for name in names:
        if match := _FINISHED.fullmatch(name):
            finished.append(FinishedAttempt(match[1], int(match[2]), match[3]))
        elif match := _STALE.fullmatch(name):
            stale.add(match[1])
    return History(tuple(finished), frozenset(stale))


def sum_up(asked: Sequence[DatedJob], history: History) -> Recorded:
    """
    Say whether a job has a recorded success for a date.

    Of each run the last attempt counts, so that a success that was run again and failed is none;
    of several runs one success is enough. All parts of an array must have succeeded, but for those
    that skipped themselves.
    """
    if not asked:
        return Recorded(False, text="nobody has asked for it yet")
    last = _last_attempts(history)
    good: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    skipped: dict[int, set[int]] = defaultdict(set)
    for part in asked:
        found = last.get(part.jobkey)
        if found is not None and found.outcome == Outcome.SUCCEEDED:
            good[part.array_size][part.array_index].append(found.name)
        elif found is not None and found.outcome == Outcome.SKIPPED:
            skipped[part.array_size].add(part.array_index)
    for size, parts in good.items():
        if len(parts.keys() | skipped[size]) == size:
            fresh = all(set(names) - history.stale for names in parts.values())
            return Recorded(True, is_stale=not fresh)
    is_skipped = all(one.outcome == Outcome.SKIPPED for one in last.values())
    has_skipped_all = any(len(parts) == size for size, parts in skipped.items())
    return Recorded(
        False,
        text=_describe(last, any(good.values())),
        had_nothing_to_do=is_skipped and has_skipped_all,
    )


def find_earlier_success(
    part: DatedJob, asked: Iterable[DatedJob], history: History
) -> FinishedAttempt | None:
    """
    Find how another run has done the same job, or the same part of an array, for the same date.

    :param part: as this run asks for it
    :returns: an attempt whose input was not written again after it; None: there is none
    """
    last = _last_attempts(history)
    for one in asked:
        found = last.get(one.jobkey)
        is_same = (one.array_index, one.array_size) == (part.array_index, part.array_size)
        is_good = found and found.outcome == Outcome.SUCCEEDED and found.name not in history.stale
        if is_same and is_good and one.jobkey != part.jobkey:
            return found
    return None


def have_skipped_themselves(jobkeys: Iterable[str], history: History) -> bool:
    """Whether the last attempt of each of these has ended with "nothing to do"."""
    last = _last_attempts(history)
    return all(key in last and last[key].outcome == Outcome.SKIPPED for key in jobkeys)


def has_any_success(history: History) -> bool:
    """Whether the last attempt of some run has succeeded, be it one part of an array only."""
    return any(one.outcome == Outcome.SUCCEEDED for one in _last_attempts(history).values())


def _last_attempts(history: History) -> dict[str, FinishedAttempt]:
    last: dict[str, FinishedAttempt] = {}
    for attempt in sorted(history.finished, key=lambda one: one.attempt):
        last[attempt.jobkey] = attempt
    return last


def _describe(last: Mapping[str, FinishedAttempt], is_partly_done: bool) -> str:
    if is_partly_done:
        return "only some of its parts have succeeded"
    outcomes = {attempt.outcome for attempt in last.values()}
    if not outcomes:
        return "it has not ended yet"
    return f"it ended: {', '.join(sorted(o.replace('_', ' ') for o in outcomes))}"


class OpenJobs:
    """The open attempts by payer, job and business date."""

    def __init__(self, entries: Iterable[QueueEntry]) -> None:
        self._open: dict[tuple[str, str], dict[str, list[QueueEntry]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for entry in entries:
            self._open[entry.payer, entry.job][entry.business_date].append(entry)

    def find(self, key: DatedKey, run_key: str) -> QueueEntry | None:
        """Find an open attempt of a job and date that a run asks for, or nobody knows which run."""
        for entry in self._open.get((key.payer, key.job), {}).get(key.business_date, ()):
            if not run_key or entry.run_key in ("", run_key):
                return entry
        return None

    def find_before(self, entry: QueueEntry) -> QueueEntry | None:
        """Find an open attempt of the same job for an earlier date."""
        dates = self._open.get((entry.payer, entry.job), {})
        earlier = [date for date in dates if date < entry.business_date]
        return dates[min(earlier)][0] if earlier else None


def dependencies_of(entry: QueueEntry) -> tuple[DatedKey, ...]:
    """Name what must have a recorded success before an entry may be admitted."""
    return () if entry.order_override else name_jobs(entry, entry.depends_on)


def name_jobs(entry: QueueEntry, jobs: Iterable[str]) -> tuple[DatedKey, ...]:
    """Name jobs of the payer and date of an entry."""
    return tuple(DatedKey(entry.payer, job, entry.business_date) for job in jobs)


def find_open_obstacle(entry: QueueEntry, open_jobs: OpenJobs) -> str | None:
    """
    Say which open attempt must end before an entry may be admitted; nothing is read for it.

    Those of other runs hold it up only while they are out or come first (``AtWork``).
    """
    for key in dependencies_of(entry):
        before = open_jobs.find(key, entry.run_key)
        if before is not None:
            return f"waits for {before.title}, which is not over"
    if entry.in_order_by_date and not entry.order_override:
        before = open_jobs.find_before(entry)
        if before is not None:
            return f"waits for {before.title}: in_order_by_date"
    return None


def find_recorded_obstacle(
    entry: QueueEntry, recorded: Mapping[DatedKey, Recorded], earlier_date: str | None
) -> str | None:
    """
    Say which success is missing before an entry may be admitted.

    :param recorded: of all that the entry depends on, and of ``earlier_date``
    :param earlier_date: the business date before for which the same job was asked for, if any
    """
    for key in dependencies_of(entry):
        if not recorded[key].has_succeeded:
            return f"waits for a success of {key}: {recorded[key].text}"
    if earlier_date is not None:
        key = DatedKey(entry.payer, entry.job, earlier_date)
        found = recorded[key]
        if not (found.has_succeeded or found.had_nothing_to_do):
            return f"waits for a success of {key} (in_order_by_date): {found.text}"
    return None


def find_stale_inputs(
    entry: QueueEntry, recorded: Mapping[DatedKey, Recorded]
) -> tuple[DatedKey, ...]:
    """Name what an entry reads although it is stale."""
    return tuple(key for key in dependencies_of(entry) if recorded[key].is_stale)


EC2_CLOCK_SECONDS = 5.0
"""EC2 tells launch times in whole seconds of its own clock."""


def find_launch_time(
    noted: float | None,
    by_ec2: float | None,
    admitted_at: float | None,
    locked_at: float | None = None,
) -> float | None:
    """
    Say when a machine was launched, in seconds since 1970.

    What the queue state has noted is by the same clock as all that is recorded. It is too late
    where a controller died between launch and note, and its heir found the machine: EC2 knows.

    :param noted: by the queue state, bucket's clock
    :param by_ec2: by EC2's clock, in whole seconds
    :param admitted_at: bucket's clock; no launch is earlier, unless the queue state was lost
    :param locked_at: when its machine took the start lock; a launch that EC2 has forgotten, and
        that was noted later, was before that
    """
    if by_ec2 is None and locked_at is not None:
        latest = locked_at + EC2_CLOCK_SECONDS
        if noted is None or noted > latest:
            return latest
    is_prompt = noted is not None and by_ec2 is not None and by_ec2 >= noted - EC2_CLOCK_SECONDS
    found = noted if by_ec2 is None or is_prompt else by_ec2
    if found is None:
        return None
    if admitted_at is None or found < admitted_at - EC2_CLOCK_SECONDS:
        # Admitted again after a loss. EC2's seconds are cut off and of another clock: an input of
        # the same moment is no newer one.
        return found + EC2_CLOCK_SECONDS
    return max(found, admitted_at)


def find_rewritten_inputs(
    inputs: Iterable[DatedKey],
    launched_at: float,
    recorded: Mapping[DatedKey, Recorded],
    last_success: Mapping[DatedKey, float],
) -> tuple[DatedKey, ...]:
    """
    Name the inputs of an attempt that were written again after its launch, or are stale.

    :param inputs: what its row depends on, also where it need not wait for it
    :param launched_at: seconds since 1970, bucket's clock
    :param recorded: how the inputs stand
    :param last_success: when the newest success of it was recorded, where there is one
    """
    return tuple(
        key
        for key in inputs
        if recorded[key].is_stale or last_success.get(key, launched_at) > launched_at
    )


def describe_staleness(
    job: str, makes_stale: Iterable[str], stale_inputs: Iterable[str]
) -> list[str]:
    """Say what a success of ``job`` made stale, and why it is stale itself; a line each."""
    now = f"is stale now: it succeeded before this run of {job}; run it again"
    why = "was written again after this launch, or is stale itself; run this again"
    return [f"{key} {now}" for key in makes_stale] + [f"stale: {key} {why}" for key in stale_inputs]
