"""Machines -> endings: watch, end what is overdue, conclude what is dead."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.batches import Act, Batches
from airflow_ephemeral_ec2.hooks.concluding import GONE
from airflow_ephemeral_ec2.hooks.last_words import LastWords, Look
from airflow_ephemeral_ec2.hooks.looking import FULL_SWEEP_SECONDS, Looking
from airflow_ephemeral_ec2.model.outcome import (
    Kill,
    Observation,
)
from airflow_ephemeral_ec2.model.watch import STUCK_SECONDS, Due, is_overdue

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.concluding import Concluding
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.looking import Sight
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.hooks.rearming import Rearming

log = logging.getLogger(__name__)
GONE_AFTER_SECONDS = 3_600.0
GONE_AFTER_MISSES = 3
"""An instance that EC2 does not show is not gone before it is this old and was missed this often."""


class Watching:
    """The machines of one controller: looked at, ended when overdue, concluded when dead."""

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        concluding: Concluding,
        fleet_for: Callable[[str, str], Fleet],
        batches: Batches,
        in_parallel: Parallel,
        rearming: Rearming,
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._concluding, self._fleet_for = concluding, fleet_for
        self._looking = Looking(store, ledger, attempts, fleet_for, in_parallel)
        self._batches, self._rearming = batches, rearming
        self._last_words = LastWords(store, attempts)

    def watch(self, now: float, kills: frozenset[str]) -> bool:
        """
        Look at the machines; end the overdue and conclude the dead; False: the lease is lost.

        :raises AwsError: the lease cannot be renewed
        """
        by_place: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for name, state in self._ledger.entries.items():
            if state.instance_id and name in self._open.memories:
                by_place[self._open.memories[name].entry.place][state.instance_id] = name
        sights = self._looking.look(by_place, now)
        self._batches.begin()
        acts = (act for sight in sights for act in self._find_acts(sight, now, kills))
        if not self._batches.perform(acts):
            return False
        return self._batches.perform(self._rearming.find_acts(sights, now))

    def _find_acts(self, sight: Sight, now: float, kills: frozenset[str]) -> list[Act]:
        shown = {o.instance_id: o for o in sight.seen}
        if sight.is_full:
            shown |= self._find_gone(sight, now)
        acts = []
        for instance_id, name in sight.machines.items():
            # A machine that this look did not show is running, as far as anybody knows.
            observation = shown.get(instance_id, Observation(instance_id, "running"))
            look = Look(observation, now, instance_id in sight.impaired)
            act = self._find_act(name, look, sight.fleet, is_killed=name in kills)
            if act is not None:
                acts.append(Act(name, act))
        return acts

    def _find_act(
        self, name: str, look: Look, fleet: Fleet, *, is_killed: bool
    ) -> Callable[[], None] | None:
        observation = look.observation
        self._ledger.set(name, is_ending=observation.state == "shutting-down")
        if observation.is_dead:
            return functools.partial(self._concluding.conclude, name, look, fleet)
        if observation.state == "shutting-down":
            return functools.partial(self._press_on, name, look, fleet)
        if is_killed:
            return functools.partial(fleet.terminate, [observation.instance_id])
        if self._open.memories[name].misses:
            # What a full sweep does not show is unknown, and no deadline can end it.
            return None
        due = self._find_due(name, look)
        return functools.partial(self._end_overdue, name, due, look, fleet) if due else None

    def _press_on(self, name: str, look: Look, fleet: Fleet) -> None:
        """End a machine by force that does not come out of ``shutting-down``."""
        memory, instance_id = self._open.memories[name], look.observation.instance_id
        if memory.seconds_since("shutting-down", look.now) > STUCK_SECONDS:
            memory.tell(f"{instance_id} is shutting down for more than 10m: terminating by force")
            memory.since["shutting-down"] = look.now - STUCK_SECONDS + FULL_SWEEP_SECONDS
            fleet.terminate([instance_id], force=True)

    def _find_gone(self, sight: Sight, now: float) -> dict[str, Observation]:
        gone, seen = {}, {o.instance_id for o in sight.seen}
        for instance_id, name in sight.machines.items():
            state, memory = self._ledger.entries[name], self._open.memories[name]
            memory.misses = 0 if instance_id in seen else memory.misses + 1
            is_old = now - (state.launched_at or now) > GONE_AFTER_SECONDS
            if is_old and memory.misses >= GONE_AFTER_MISSES:
                gone[instance_id] = Observation(instance_id, GONE, arn=state.arn or "")
        return gone

    def _find_due(self, name: str, look: Look) -> Due | None:
        memory, now = self._open.memories[name], look.now
        launched_at = self._ledger.entries[name].launched_at or now
        impaired_for = memory.seconds_since("impaired", now, holds=look.is_impaired)
        due = is_overdue(memory.entry, look.observation, launched_at, now, impaired_for)
        return None if due and due.needs_free_lock and memory.is_started else due

    def _end_overdue(self, name: str, due: Due, look: Look, fleet: Fleet) -> None:
        memory, observation = self._open.memories[name], look.observation
        free = self._store.revoke_start_lock(memory.entry, due.reason)
        if due.needs_free_lock and not free:
            memory.is_started = True
            return
        self._store.write_kill(name, Kill(due.reason, due.by))
        memory.tell(f"ending {observation.instance_id}: {due.reason}")
        arn = observation.arn or self._ledger.entries[name].arn or ""
        self._last_words.end(memory, observation, arn, fleet)
