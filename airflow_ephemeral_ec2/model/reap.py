"""
Which machines are orphans: the last layer, which trusts none of the others.

Only machines that carry this environment's tag are ever looked at, and none is ended on one look:
a look may be wrong (EC2 developer guide, "Eventual consistency").
"""

from collections.abc import Collection, Mapping, Sequence
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
    label: str
    """``acme/claims, attempt 2``."""
    name: str
    """Name of its attempt's queue entry."""
    age: float | None
    """Seconds since its network interface was attached: ``LaunchTime`` starts again at every
    start (EC2 API reference, Instance)."""
    max_lifetime: float | None
    """Seconds, of its tag; None when there is no such number."""


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
    label: str
    reason: Suspicion
    detail: str


@dataclass(frozen=True)
class ReapPlan:
    """What one pass does, and what it remembers for the next."""

    orphans: tuple[Finding, ...]
    """Seen twice: to be ended now."""
    suspects: tuple[Finding, ...]
    """Seen once, or not long enough."""
    sightings: Mapping[str, Sighting]
    alarms: tuple[str, ...] = ()


def suspect_machine(machine: SeenMachine, open_names: Collection[str] | None) -> Finding | None:
    """
    Say why a machine should not be there, or None.

    :param open_names: names of the open attempts; None when the bucket cannot be read: then only
        what EC2 itself says counts
    """
    if machine.state == "terminated":
        return None
    reason, detail = None, ""
    limit = reapable_age(machine.max_lifetime)
    if machine.state == "shutting-down":
        reason, detail = Suspicion.STUCK, "does not come out of shutting-down"
    elif machine.state in ("stopping", "stopped"):
        reason, detail = Suspicion.STOPPED, f"{machine.state}: keeps a disk that may hold PHI"
    elif machine.age is not None and machine.age > limit:
        age, allowed = format_duration(machine.age), format_duration(limit)
        reason, detail = Suspicion.TOO_OLD, f"{age} old, at most {allowed} allowed"
    elif open_names is not None and machine.name not in open_names:
        reason, detail = Suspicion.NOT_OPEN, "its attempt is over, or was never asked for"
    return Finding(machine.instance_id, machine.label, reason, detail) if reason else None


def decide_reap(
    machines: Sequence[SeenMachine],
    leftovers: Sequence[str],
    open_names: Collection[str] | None,
    before: Mapping[str, Sighting],
    now: float,
) -> ReapPlan:
    """
    Decide what to end.

    :param leftovers: ids of volumes and network interfaces that nothing uses
    :param before: sightings of earlier passes, by resource id
    :param now: seconds since 1970 by AWS's clock, never a host's
    """
    found = [finding for machine in machines if (finding := suspect_machine(machine, open_names))]
    found += [
        Finding(one, "", Suspicion.LEFT_OVER, "nothing uses it any more") for one in leftovers
    ]
    sightings: dict[str, Sighting] = {}
    orphans: list[Finding] = []
    suspects: list[Finding] = []
    for finding in found:
        last = before.get(finding.resource_id)
        is_same = last is not None and last.reason is finding.reason and last.first_seen <= now
        first_seen = last.first_seen if is_same and last is not None else now
        sightings[finding.resource_id] = Sighting(reason=finding.reason, first_seen=first_seen)
        is_sure = is_same and now - first_seen >= PATIENCE_SECONDS[finding.reason]
        (orphans if is_sure else suspects).append(finding)
    return ReapPlan(tuple(orphans), tuple(suspects), sightings, tuple(_alarms(machines)))


def _alarms(machines: Sequence[SeenMachine]) -> list[str]:
    return [
        f"{machine.instance_id} ({machine.label}): no readable max-lifetime tag; the longest counts"
        for machine in machines
        if machine.max_lifetime is None and machine.state != "terminated"
    ]
