"""Looks at the machines of all places at once; a place that cannot be asked holds up no other."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.parallel import while_leased
from airflow_ephemeral_ec2.model.sweep import spares_until
from airflow_ephemeral_ec2.model.watch import pause_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.outcome import Observation
    from airflow_ephemeral_ec2.model.queue import Place

log = logging.getLogger(__name__)
FULL_SWEEP_SECONDS = 60.0


@dataclass(frozen=True)
class Sight:
    """What a place has shown."""

    fleet: Fleet
    machines: Mapping[str, str]
    """Instance id -> name of its attempt."""
    is_full: bool
    """All that EC2 shows is in it; otherwise only what is not running any more."""
    seen: Sequence[Observation]
    impaired: frozenset[str]
    """As of the last full look."""


@dataclass
class _Health:
    """How asking a place went."""

    failures: int = 0
    """In a row."""
    not_before: float = 0.0
    swept_at: float = 0.0
    impaired: frozenset[str] = field(default_factory=frozenset)
    ending: frozenset[str] = field(default_factory=frozenset)
    """Machines that the last look showed as not running."""
    spares_until: float = 0.0
    """Frequent looks leave out what was dead before."""


class Looking:
    """
    The places of one controller.

    :param chance: gives random numbers from 0 to 1, which spread the pauses
    """

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        fleet_for: Callable[[str, str], Fleet],
        in_parallel: Parallel,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._fleet_for, self._in_parallel = fleet_for, in_parallel
        self._chance = chance
        self._places: dict[Place, _Health] = defaultdict(_Health)

    def look(self, by_place: Mapping[Place, Mapping[str, str]], now: float) -> list[Sight]:
        """
        Look at machines (instance id -> name of its attempt), where EC2 can be asked.

        :raises AwsError: the lease cannot be renewed meanwhile
        """
        due = [place for place in by_place if self._places[place].not_before <= now]
        found = while_leased(
            self._in_parallel,
            self._ledger.keep_lease,
            lambda place: self._look_at(place, by_place[place], now),
            due,
        )
        return [sight for sight in found if sight is not None]

    def _look_at(self, place: Place, machines: Mapping[str, str], now: float) -> Sight | None:
        health, sight = self._places[place], None
        with self._open.isolated(machines.values(), is_queued=False):
            sight = self._ask(place, machines, now)
        if sight is None:
            health.failures += 1
            pause = pause_after(health.failures, self._chance())
            health.not_before = self._store.clock.now() + pause
            return None
        health.failures = 0
        if sight.is_full:
            health.swept_at, health.impaired = now, sight.impaired
        return sight

    def _ask(self, place: Place, machines: Mapping[str, str], now: float) -> Sight:
        health, fleet = self._places[place], self._fleet_for(*place)
        is_full = now - health.swept_at >= FULL_SWEEP_SECONDS
        entries, is_sparing = self._ledger.entries, now < health.spares_until
        shown = fleet.observe(
            list(machines),
            all_states=is_full,
            launched_at=[entries[name].launched_at or now for name in machines.values()],
            ending=health.ending & machines.keys() if is_sparing else None,
        )
        health.ending = shown.not_running
        if not is_full and not is_sparing:
            health.spares_until = spares_until(shown, now, health.spares_until)
        impaired = self._find_impaired(fleet) if is_full else health.impaired
        return Sight(fleet, machines, is_full, shown.machines, impaired)

    def _find_impaired(self, fleet: Fleet) -> frozenset[str]:
        try:
            return fleet.find_impaired()
        except AwsError as error:
            # It only makes a lost host known earlier; its deadline ends it all the same.
            log.warning("cannot ask for impaired hosts: %s", error)
            return frozenset()
