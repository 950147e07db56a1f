"""What to do about a machine that is still there."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_ephemeral_ec2.model.outcome import KILL_STOPPED, Observation
from airflow_ephemeral_ec2.model.queue import QueueEntry

DEADLINE_SLACK_SECONDS = 120
"""The engine waits this much longer than the agent's own limit, so that the agent acts first."""
STUCK_SECONDS = 600
"""Pending, shutting down or impaired for longer than this is not normal any more."""
CONSOLE_PATIENCE_SECONDS = 300
"""EC2 posts the console output minutes after a machine's end, if at all."""
CONSOLE_GRACE_SECONDS = 30
"""For so long it is waited for where it decides nothing, and only says why a machine failed."""
CONSOLE_TOLERANCE_SECONDS = 30
"""A machine is seen dead a few seconds after its death; a post in between has its last words."""

EXTRA_LOOKS = 3
"""So many looks a minute are made sooner because a machine is expected to end."""
LOOK_SECONDS = 10.0
"""Between two looks for machines of which nobody knows whether they are there."""
QUIET_SECONDS = 300.0
"""A machine that was not shown for this long is not there: what DescribeInstances shows may lag
minutes behind (EC2 developer guide, "Eventual consistency")."""

FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
"""How long a connection and region is left alone that could not be asked."""


@dataclass(frozen=True)
class Due:
    """A reason to end a machine from outside, as the kill record names it."""

    reason: str
    by: str = ""
    needs_free_lock: bool = False
    """Only if the start lock can still be revoked: otherwise the job is running."""


def is_overdue(
    entry: QueueEntry,
    observation: Observation,
    launched_at: float,
    now: float,
    impaired_for: float = 0.0,
) -> Due | None:
    """
    Decide whether a machine must be ended from outside, counted from its launch (seconds).

    Stopped machines keep a disk with PHI: they are always ended.

    :param impaired_for: seconds for which EC2 has called the host impaired
    """
    if observation.is_dead or observation.state == "shutting-down":
        return None
    if observation.state in ("stopping", "stopped"):
        return Due(KILL_STOPPED, by=observation.reason_code)
    age = now - launched_at
    longest = entry.boot_timeout + entry.max_runtime + entry.stop_grace + DEADLINE_SLACK_SECONDS
    if age > longest:
        return Due("timeout")
    if impaired_for > STUCK_SECONDS:
        return Due("impaired")
    if age > entry.boot_timeout:
        return Due("boot_timeout", needs_free_lock=True)
    if observation.state == "pending" and age > STUCK_SECONDS:
        return Due("stuck_pending", needs_free_lock=True)
    return None


def is_last_post(dead_since: float, posted_at: float | None) -> bool:
    """
    Say whether a console's post has the last words of a dead machine.

    EC2 posts the output shortly after an instance's transitions (EC2 user guide, "Instance console
    output"), so a post that is not older than the death is the last one. All times in seconds
    since 1970.

    :param posted_at: time of the last post, None when there was none
    """
    return posted_at is not None and posted_at >= dead_since - CONSOLE_TOLERANCE_SECONDS


def may_conclude_without_marker(
    dead_since: float,
    now: float,
    posted_at: float | None,
    patience: float = CONSOLE_PATIENCE_SECONDS,
) -> bool:
    """Decide whether the console can bring the last words of a dead machine no more."""
    return is_last_post(dead_since, posted_at) or now - dead_since > patience


def may_look_sooner(looks: Sequence[float], now: float) -> bool:
    """
    Whether a look may be made out of turn: a few a minute, however many machines are to end.

    :param looks: when the last ``EXTRA_LOOKS`` of them were made, in seconds of ``now``'s clock
    """
    return sum(now - at < 60.0 for at in looks) < EXTRA_LOOKS


def spread(seconds: float, chance: float) -> float:
    """
    Make a pause up to a tenth longer or shorter, so that many processes do not ask together.

    :param chance: a random number from 0 to 1
    """
    return seconds * (0.9 + 0.2 * chance)


def pause_after(failures: int, chance: float) -> float:
    """Seconds until a place is asked again that could not be asked so many times in a row."""
    doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)
    return spread(min(doubled, LONGEST_PAUSE_SECONDS), chance)


def plan_batches(entries: Iterable[QueueEntry], size: int) -> list[list[QueueEntry]]:
    """
    Say whose ends may be recorded at the same time, batch by batch.

    A payer's jobs of one date come one after the other: whether a success is stale depends on what
    is recorded of the others. The parts of an array do not depend on each other.
    """
    waves: list[list[QueueEntry]] = []
    turns: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for entry in entries:
        jobs = turns[entry.payer, entry.business_date]
        turn = jobs.setdefault(entry.job, len(jobs))
        if turn == len(waves):
            waves.append([])
        waves[turn].append(entry)
    return [wave[at : at + size] for wave in waves for at in range(0, len(wave), size)]
