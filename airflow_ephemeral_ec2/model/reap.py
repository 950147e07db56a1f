"""
Which machines are orphans: the last layer, which trusts none of the others.

Only machines that carry this environment's tag are ever looked at, and none is ended on one look:
a look may be wrong (EC2 developer guide, "Eventual consistency").
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.lifetimes import reapable_age
from airflow_ephemeral_ec2.model.spec import Spec


class Suspicion(StrEnum):
    """Why a thing should not be there."""

    TOO_OLD = "too_old"
    STOPPED = "stopped"
    NOT_OPEN = "not_open"
    STUCK = "stuck"
    LEFT_OVER = "left_over"


class Standing(StrEnum):
    """What the bucket says about the attempt of a machine."""

    OPEN = "open"
    ENDING = "ending"
    """Somebody asked for its end."""
    OVER = "over"
    LOCKED_OUT = "locked_out"
    """Another machine holds the attempt's start lock, or nobody may take it any more."""
    UNKNOWN = "unknown"
    """There is no launch record: made by hand, or by somebody with our tags."""


_UNWANTED = {
    Standing.ENDING: "its end was asked for, and it is still there",
    Standing.OVER: "its attempt is over",
    Standing.LOCKED_OUT: "it may not run its attempt: another machine does, or nobody may",
}
PATIENCE_SECONDS = {
    Suspicion.TOO_OLD: 30.0,
    Suspicion.STOPPED: 900.0,
    Suspicion.NOT_OPEN: 240.0,
    Suspicion.STUCK: 600.0,
    Suspicion.LEFT_OVER: 3_600.0,
}
"""Seconds that must lie between two sightings of the same suspicion."""


@dataclass(frozen=True)
class SeenMachine:
    """A machine of this environment, as EC2 shows it."""

    instance_id: str
    state: str
    payer: str
    job: str
    jobkey: str
    attempt: str
    """As its tag says; all four are empty where a tag is missing."""
    age: float | None
    """Seconds since its network interface was attached: ``LaunchTime`` starts again at every
    start (EC2 API reference, Instance)."""
    max_lifetime: float | None
    """Seconds, of its tag; None when there is no such number."""

    @property
    def name(self) -> str:
        """Name of its attempt's queue entry."""
        return f"{self.jobkey}-a{self.attempt}"

    @property
    def label(self) -> str:
        """``acme/claims, attempt 2``."""
        return f"{self.payer}/{self.job}, attempt {self.attempt}"


class Sighting(Spec):
    """When a suspicion was first seen, and not doubted since."""

    reason: Suspicion
    first_seen: float
    """Seconds since 1970 by AWS's clock."""


class Sightings(Spec):
    """What the reaper remembers from one pass to the next."""

    version: int = 1
    of: dict[str, Sighting] = Field(default_factory=dict)
    alerted: tuple[str, ...] = ()
    """Orphans that somebody was told about."""
    passed_at: float = 0.0


@dataclass(frozen=True)
class Finding:
    """One thing, why it is suspected, and in words."""

    resource_id: str
    reason: Suspicion
    detail: str
    machine: SeenMachine | None = None
    """None for a volume or network interface."""

    @property
    def label(self) -> str:
        """Whose machine it is; empty for a volume or network interface."""
        return self.machine.label if self.machine else ""


@dataclass(frozen=True)
class ReapPlan:
    """What one pass does, and what it remembers for the next."""

    orphans: tuple[Finding, ...]
    """Seen twice: to be ended now."""
    suspects: tuple[Finding, ...]
    """Seen once, or not long enough."""
    sightings: Mapping[str, Sighting]
    alarms: tuple[str, ...] = ()


def suspect_machine(machine: SeenMachine, standing: Standing | None) -> Finding | None:
    """
    Say why a machine should not be there, or None.

    :param standing: None when the bucket cannot be read: then only what EC2 itself says counts
    """
    reason, detail = None, ""
    limit = reapable_age(machine.max_lifetime)
    if machine.state == "terminated":
        return None
    if machine.state == "shutting-down":
        reason, detail = Suspicion.STUCK, "does not come out of shutting-down"
    elif machine.age is not None and machine.age > limit:
        age, allowed = format_duration(machine.age), format_duration(limit)
        reason, detail = Suspicion.TOO_OLD, f"{age} old, at most {allowed} allowed"
    elif machine.state in ("stopping", "stopped"):
        reason, detail = Suspicion.STOPPED, f"{machine.state}: keeps a disk that may hold PHI"
    elif standing in _UNWANTED:
        reason, detail = Suspicion.NOT_OPEN, _UNWANTED[standing]
    return Finding(machine.instance_id, reason, detail, machine) if reason else None


def decide_reap(
    machines: Sequence[SeenMachine],
    leftovers: Sequence[str],
    standings: Mapping[str, Standing] | None,
    before: Mapping[str, Sighting],
    now: float,
    patience: Mapping[Suspicion, float] = PATIENCE_SECONDS,
) -> ReapPlan:
    """
    Decide what to end.

    :param leftovers: ids of volumes and network interfaces that nothing uses
    :param standings: what the bucket says, by instance id; None when it cannot be read
    :param before: sightings of earlier passes, by resource id
    :param now: seconds since 1970 by AWS's clock, never a host's
    :param patience: seconds between two sightings that make an orphan
    """
    known = standings or {}
    looks = [suspect_machine(machine, known.get(machine.instance_id)) for machine in machines]
    found = [finding for finding in looks if finding is not None]
    found += [Finding(one, Suspicion.LEFT_OVER, "nothing uses it any more") for one in leftovers]
    sightings: dict[str, Sighting] = {}
    orphans: list[Finding] = []
    suspects: list[Finding] = []
    for finding in found:
        seen = _seen_before(finding, before, now)
        sightings[finding.resource_id] = Sighting(
            reason=finding.reason, first_seen=now if seen is None else seen
        )
        is_sure = seen is not None and now - seen >= patience[finding.reason]
        (orphans if is_sure else suspects).append(finding)
    alarms = [line for one in machines for line in _alarms(one, known.get(one.instance_id))]
    return ReapPlan(tuple(orphans), tuple(suspects), sightings, tuple(alarms))


def _seen_before(finding: Finding, before: Mapping[str, Sighting], now: float) -> float | None:
    last = before.get(finding.resource_id)
    is_same = last is not None and last.reason is finding.reason and last.first_seen <= now
    return last.first_seen if is_same and last is not None else None


def _alarms(machine: SeenMachine, standing: Standing | None) -> Iterator[str]:
    """Say what only a person can put right."""
    whose = f"{machine.instance_id} ({machine.label})"
    if machine.state == "terminated":
        return
    if machine.max_lifetime is None:
        yield f"{whose}: no readable max-lifetime tag; the longest lifetime counts"
    if standing is Standing.UNKNOWN:
        yield (
            f"{whose}: has this environment's tag and no launch record in the bucket; "
            "somebody else made it, so it is ended for its age alone"
        )
