"""Machines that a controller has adopted: whoever launched them may have died before arming them."""

from __future__ import annotations

import functools
from itertools import islice
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.batches import Act
from airflow_ephemeral_ec2.model.identity import name_client_token
from airflow_ephemeral_ec2.model.lifetimes import scheduled_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import ArmedOnce
    from airflow_ephemeral_ec2.hooks.looking import Sight
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.outcome import Observation
    from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry

AT_ONCE = 16
"""Machines armed in one pass: one call of each thread, so that ends do not wait for it."""
SOON_SECONDS = 60.0
"""A schedule for a moment that is over might never fire: it is made for this much later."""
PAUSE_SECONDS = 60.0
"""After a schedule that could not be made."""


class Rearming:
    """Arms the machines that this controller has not launched itself, once each."""

    def __init__(self, ledger: QueueLedger, attempts: OpenAttempts, backstop: ArmedOnce) -> None:
        self._ledger, self._open, self._backstop = ledger, attempts, backstop
        self._now = self._not_before = 0.0

    def find_acts(self, sights: Iterable[Sight], now: float) -> list[Act]:
        """Say which machines are armed in this pass: few, and none where nobody asked for it."""
        if not self._backstop.is_wanted or now < self._not_before:
            return []
        self._now = now
        states = self._ledger.entries.values()
        untried = self._backstop.find_untried({s.instance_id for s in states if s.instance_id})
        acts = (act for sight in sights for act in self._find_acts_at(sight, untried))
        return list(islice(acts, AT_ONCE)) if untried else []

    def _find_acts_at(self, sight: Sight, untried: Iterable[str]) -> Iterator[Act]:
        shown = {one.instance_id: one for one in sight.seen}
        for instance_id in sight.machines.keys() & untried:
            name, machine = sight.machines[instance_id], shown.get(instance_id)
            is_out = machine.state in ("pending", "running") if machine else not sight.is_full
            if not is_out or name not in self._open.memories:
                # Those that have just ended are out of the queue.
                continue
            state = self._ledger.entries[name]
            token = find_token(self._open.memories[name].entry, state, machine)
            if token:
                launched_at = (machine and machine.launched_at) or state.launched_at or self._now
                arm = functools.partial(self._arm, name, instance_id, token, launched_at)
                yield Act(name, functools.partial(arm, sight.fleet))

    def _arm(
        self, name: str, instance_id: str, token: str, launched_at: float, fleet: Fleet
    ) -> None:
        memory = self._open.memories[name]
        ends_at = scheduled_end(launched_at, memory.entry.max_lifetime)
        at = max(ends_at, self._now + SOON_SECONDS)
        problem = self._backstop.arm(fleet.clients, token, instance_id, at)
        if problem is not None:
            self._not_before = self._now + PAUSE_SECONDS
            memory.tell(problem)


def find_token(entry: QueueEntry, state: EntryState, machine: Observation | None) -> str:
    """Return a machine's client token, after which its schedule is named; empty: not known now."""
    if state.placement is None:
        # The queue state was lost, and made again from what EC2 shows.
        return machine.client_token if machine else ""
    return name_client_token(entry.jobkey, entry.attempt, state.placement, entry.nonce)
