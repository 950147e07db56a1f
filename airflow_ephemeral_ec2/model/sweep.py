"""What to ask EC2 for, so that many machines are looked at often and the dead cost little."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_ephemeral_ec2.model.outcome import Observation

MAX_FILTER_VALUES = 200
"""EC2's limit per filter (EC2 API reference, "Filtering")."""
MINUTES_AROUND = (-2, -1, 0, 1)
"""EC2's launch time is not the moment of its answer."""
ENDING = ("shutting-down", "stopping", "stopped")
NOT_RUNNING = (*ENDING, "terminated")
ALIVE = ("pending", "running", *ENDING)
CROWD = 250
"""So many machines that nobody waits for, in one frequent look, are too many."""
SPARING_SECONDS = 600.0
"""For so long the frequent look then leaves the dead out, before it tries again."""


@dataclass(frozen=True)
class Shown:
    """What one look has shown."""

    machines: list[Observation]
    others: int = 0
    """Machines of the environment that were not asked for: mostly dead, shown for up to an hour."""

    @property
    def not_running(self) -> frozenset[str]:
        """Those that will soon be dead, or are."""
        return frozenset(o.instance_id for o in self.machines if o.state in NOT_RUNNING)


def spares_until(shown: Shown, now: float, until: float) -> float:
    """
    Say until when frequent looks leave the dead out, after one that did not.

    EC2 shows a dead machine for about an hour, in every look. Where machines live for minutes,
    the dead of an hour are many more than the living.
    """
    return now + SPARING_SECONDS if shown.others > CROWD else until


def find_launch_minutes(launched_at: Iterable[float]) -> list[str]:
    """
    Name the minutes in which machines were launched, for the filter ``launch-time``.

    Hours or days where there are too many minutes for one filter; nothing where even that is too
    much. The filter takes wildcards (EC2 API reference, "DescribeInstances").
    """
    moments = {
        datetime.fromtimestamp(seconds + 60 * around, UTC)
        for seconds in launched_at
        for around in MINUTES_AROUND
    }
    for form in ("%Y-%m-%dT%H:%M:*", "%Y-%m-%dT%H:*", "%Y-%m-%dT*"):
        names = sorted({moment.strftime(form) for moment in moments})
        if len(names) <= MAX_FILTER_VALUES:
            return names
    return []
