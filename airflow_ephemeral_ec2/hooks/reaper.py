"""One pass of the reaper over one region: look, decide, end, remember."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.hooks.standings import find_standings
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.reap import (
    PATIENCE_SECONDS,
    Finding,
    ReapPlan,
    Sightings,
    Suspicion,
    decide_reap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.reaper_fleet import ReaperFleet
    from airflow_ephemeral_ec2.model.reap import SeenMachine, Standing

log = logging.getLogger(__name__)
TAGS_SETTLE_SECONDS = 600.0
"""Younger machines may not show their tags yet (EC2 developer guide, "Eventual consistency")."""


@dataclass(frozen=True)
class ReapResult:
    """What one pass saw and did."""

    region: str
    machines: int
    """Machines of the environment that are not terminated."""
    plan: ReapPlan
    alarms: tuple[str, ...]
    """What only a person can put right."""
    problems: dict[str, str]
    """Resource id -> why it could not be ended."""
    is_dry_run: bool
    is_bucket_readable: bool
    is_remembered: bool = True
    """The next run of the reaper will know what this one saw."""
    new_orphans: tuple[Finding, ...] = ()
    """Those that nobody was told about yet."""


class Reaper:
    """
    Ends orphans of one environment in one region.

    Needs neither the queue nor a controller. Where the bucket cannot be read, only what EC2 says
    counts, and what was seen is remembered in this object alone.

    :param store: the bucket of record
    :param patience: seconds that must lie between two sightings of the same suspicion
    :param sleep: waits for so many seconds
    """

    def __init__(
        self,
        fleet: ReaperFleet,
        store: JobStore,
        patience: Mapping[Suspicion, float] = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._fleet, self._store = fleet, store
        self._patience, self._sleep = patience, sleep
        self._notes = ReaperStore(store, store.environment)
        self._memory = Sightings()

    def reap(self, *, is_dry_run: bool = False) -> list[ReapResult]:
        """
        Make one pass; where the bucket remembers nothing, a second one half a minute later.

        :raises AwsError: EC2 could not be asked
        """
        first = self.make_pass(is_dry_run=is_dry_run)
        is_old = any(one.reason is Suspicion.TOO_OLD for one in first.plan.suspects)
        if first.is_remembered or not is_old:
            return [first]
        self._sleep(self._patience[Suspicion.TOO_OLD] + 1)
        return [first, self.make_pass(is_dry_run=is_dry_run)]

    def make_pass(self, *, is_dry_run: bool = False) -> ReapResult:
        """
        Look once; end what was suspected before and still is.

        :raises AwsError: EC2 could not be asked
        """
        machines = self._fleet.list_machines()
        leftovers = self._find_leftovers()
        standings, is_readable = self._read_bucket(machines)
        now = self._fleet.now
        plan = decide_reap(machines, leftovers, standings, self._memory.of, now, self._patience)
        alarms = (*plan.alarms, *(self._find_untagged(machines) if is_readable else ()))
        problems = {} if is_dry_run else self._end(plan)
        told = set(self._memory.alerted)
        fresh = tuple(one for one in plan.orphans if one.resource_id not in told)
        told |= set() if is_dry_run else {one.resource_id for one in fresh}
        forgotten = self._remember(plan, now, told, is_dry_run=is_dry_run)
        if forgotten and is_readable and plan.suspects:
            alarms = (*alarms, forgotten)
        for line in (*alarms, *(f"{one}: {why}" for one, why in problems.items())):
            log.error("%s", line)
        region = self._fleet.region
        is_remembered = is_readable and not forgotten
        return ReapResult(
            region, len(machines), plan, alarms, problems, is_dry_run, is_readable,
            is_remembered, fresh,
        )  # fmt: skip

    def _find_leftovers(self) -> list[str]:
        try:
            return self._fleet.list_leftovers()
        except AwsError as error:
            # Machines cost more than disks: these are ended all the same.
            log.warning("cannot look for left-over volumes and interfaces: %s", error)
            return []

    def _read_bucket(
        self, machines: Sequence[SeenMachine]
    ) -> tuple[Mapping[str, Standing] | None, bool]:
        """Read the standings, None when they cannot be read, and what earlier passes saw."""
        try:
            found = self._notes.read_sightings(self._fleet.region)
            # This process may remember more: a dry run, or a bucket that could not be written.
            if found is not None and found.passed_at >= self._memory.passed_at:
                self._memory = found
            return find_standings(self._store, machines), True
        except AwsError as error:
            log.warning("the bucket cannot be read, so only EC2's own word counts: %s", error)
            return None, False

    def _find_untagged(self, machines: Sequence[SeenMachine]) -> list[str]:
        """Name the machines that are invisible here, because somebody took their tags away."""
        try:
            old = self._fleet.now - TAGS_SETTLE_SECONDS
            launched = {
                state.instance_id: name
                for name, state in self._store.read_state()[0].entries.items()
                if state.instance_id and (state.launched_at or 0) < old
            }
            missing = sorted(set(launched) - {machine.instance_id for machine in machines})
            lost = self._fleet.find_untagged(missing)
        except AwsError as error:
            log.warning("cannot look for machines that lost their tags: %s", error)
            return []
        return [
            f"{one}, machine of the open attempt {launched[one]}, has lost its tags: put "
            "ephemeral-ec2:environment back, or end it yourself"
            for one in lost
        ]

    def _end(self, plan: ReapPlan) -> dict[str, str]:
        stuck = [one.resource_id for one in plan.orphans if one.reason is Suspicion.STUCK]
        others = [one.resource_id for one in plan.orphans if one.reason is not Suspicion.STUCK]
        return self._fleet.end(others) | self._fleet.end(stuck, force=True)

    def _remember(
        self, plan: ReapPlan, now: float, told: set[str], *, is_dry_run: bool
    ) -> str | None:
        """Keep what was seen for the next run; return what keeps it from being kept."""
        kept = tuple(sorted(told & set(plan.sightings)))
        self._memory = Sightings(of=dict(plan.sightings), alerted=kept, passed_at=now)
        if is_dry_run:
            return None
        try:
            self._notes.write_sightings(self._fleet.region, self._memory)
        except AwsError as error:
            log.warning("cannot remember what was seen in the bucket: %s", error)
            return (
                "what was seen cannot be kept in the bucket, so the next run of the reaper begins "
                f"anew and ends only what is too old: {error}"
            )
        return None


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
        lines.append(f"orphan {_named(one)}: {one.detail}; {what}")
    lines += [
        f"suspected {_named(one)}: {one.detail}; looked at again" for one in result.plan.suspects
    ]
    return [*lines, *(f"alarm: {line}" for line in result.alarms)]


def _named(finding: Finding) -> str:
    machine = finding.machine
    if machine is None:
        return finding.resource_id
    age = "" if machine.age is None else f", {format_duration(machine.age)} old"
    return f"{finding.resource_id} {machine.label}{age}"
