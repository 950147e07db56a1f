"""One pass of the reaper over one region: look, decide, end, remember."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.reap import (
    Finding,
    ReapPlan,
    Sightings,
    Suspicion,
    decide_reap,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReapResult:
    """What one pass saw and did."""

    region: str
    machines: int
    """Machines of the environment that are not terminated."""
    plan: ReapPlan
    problems: dict[str, str]
    """Resource id -> why it could not be ended."""
    is_dry_run: bool
    is_bucket_readable: bool
    new_orphans: tuple[Finding, ...] = ()
    """Those that nobody was told about yet."""


class Reaper:
    """
    Ends orphans of one environment in one region.

    Needs neither the queue nor a controller. Where the bucket cannot be read, only what EC2 says
    counts, and what was seen is remembered in this object alone: make two passes.
    """

    def __init__(self, fleet: ReaperFleet, store: JobStore | None) -> None:
        self._fleet, self._store = fleet, store
        self._notes = ReaperStore(store, store.environment) if store else None
        self._memory = Sightings()

    def make_pass(self, *, is_dry_run: bool = False) -> ReapResult:
        """
        Look once; end what was suspected before and still is.

        :raises AwsError: EC2 could not be asked
        """
        machines = self._fleet.list_machines()
        leftovers = self._find_leftovers()
        open_names, is_readable = self._read_bucket()
        now = self._fleet.now
        plan = decide_reap(machines, leftovers, open_names, self._memory.of, now)
        problems = {} if is_dry_run else self._end(plan)
        told = set(self._memory.alerted)
        fresh = tuple(one for one in plan.orphans if one.resource_id not in told)
        if not is_dry_run:
            self._remember(plan, now, told | {one.resource_id for one in fresh})
        for line in (*plan.alarms, *(f"{one}: {why}" for one, why in problems.items())):
            log.error("%s", line)
        return ReapResult(
            self._fleet.region, len(machines), plan, problems, is_dry_run, is_readable, fresh
        )

    def _find_leftovers(self) -> list[str]:
        try:
            return self._fleet.list_leftovers()
        except AwsError as error:
            # Machines cost more than disks: these are ended all the same.
            log.warning("cannot look for left-over volumes and interfaces: %s", error)
            return []

    def _read_bucket(self) -> tuple[Collection[str] | None, bool]:
        """Read the open attempts and what earlier passes saw; None when it cannot be read."""
        if self._store is None or self._notes is None:
            return None, False
        try:
            names = self._store.list_queue().entries
            self._memory = self._notes.read_sightings(self._fleet.region) or self._memory
        except AwsError as error:
            log.warning("the bucket cannot be read, so only EC2's own word counts: %s", error)
            return None, False
        return names, True

    def _end(self, plan: ReapPlan) -> dict[str, str]:
        stuck = [one.resource_id for one in plan.orphans if one.reason is Suspicion.STUCK]
        others = [one.resource_id for one in plan.orphans if one.reason is not Suspicion.STUCK]
        return self._fleet.end(others) | self._fleet.end(stuck, force=True)

    def _remember(self, plan: ReapPlan, now: float, told: set[str]) -> None:
        kept = tuple(sorted(told & set(plan.sightings)))
        self._memory = Sightings(of=dict(plan.sightings), alerted=kept, passed_at=now)
        if self._notes is None:
            return
        try:
            self._notes.write_sightings(self._fleet.region, self._memory)
        except AwsError as error:
            log.warning("cannot remember what was seen in the bucket: %s", error)


def describe_pass(result: ReapResult) -> list[str]:
    """Say what a pass saw and did, a line each; no PHI."""
    done = "would be ended" if result.is_dry_run else "ended"
    lines = [
        f"{result.region}: {result.machines} machines, {len(result.plan.orphans)} orphans, "
        f"{len(result.plan.suspects)} suspected"
        + ("" if result.is_bucket_readable else "; the bucket cannot be read: EC2's word only")
    ]
    for one in result.plan.orphans:
        failed = result.problems.get(one.resource_id)
        what = f"could not be ended: {failed}" if failed else done
        lines.append(f"orphan {one.resource_id} {one.label}: {one.detail}; {what}")
    lines += [
        f"suspected {one.resource_id} {one.label}: {one.detail}; looked at again"
        for one in result.plan.suspects
    ]
    return [*lines, *(f"alarm: {line}" for line in result.plan.alarms)]
