"""Machines -> endings: watch, end what is overdue, conclude what is dead."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.endings import (
    AdmissionTimes,
    collect_evidence,
    write_ending,
)
from airflow_ephemeral_ec2.hooks.last_words import LastWords, Look
from airflow_ephemeral_ec2.model.order import NOTHING_STALE, DatedKey, find_launch_time
from airflow_ephemeral_ec2.model.outcome import Kill, Observation, Outcome, Verdict
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.report import Report
from airflow_ephemeral_ec2.model.watch import (
    STUCK_SECONDS,
    is_overdue,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import Backstop
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.order_book import OrderBook
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.queue import QueueEntry

log = logging.getLogger(__name__)
FULL_SWEEP_SECONDS = 60.0
GONE_AFTER_SECONDS = 3_600.0
GONE_AFTER_MISSES = 3
"""An instance that EC2 does not show is not gone before it is this old and was missed this often."""


@dataclass(frozen=True)
class Round:
    """One pass over the machines."""

    now: float
    is_full: bool
    kills: frozenset[str]


class Watching:
    """The machines of one controller, and the ends of its attempts."""

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        order: OrderBook,
        fleet_for: Callable[[str, str], Fleet],
        backstop: Backstop,
        when_closed: Callable[[QueueEntry], None],
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._last_words = LastWords(store, attempts)
        self._order, self._when_closed = order, when_closed
        self._fleet_for, self._backstop = fleet_for, backstop
        self._full_sweep_at = 0.0
        self._lifetimes: dict[tuple[str, str], float] = {}
        """Payer and job -> seconds from launch to the end that was seen last."""
        self._impaired: dict[tuple[str, str], frozenset[str]] = {}

    def expects_end(self, now: float, within: float) -> bool:
        """Whether a machine will have lived as long as the last of the same job, within seconds."""
        for name, memory in self._open.memories.items():
            lived = self._lifetimes.get((memory.entry.payer, memory.entry.job))
            launched_at = self._ledger.entries[name].launched_at if lived else None
            if lived and launched_at and 0 <= launched_at + lived - now + within <= 2 * within:
                return True
        return False

    def watch(self, now: float, kills: frozenset[str]) -> None:
        """Look at the machines; end the overdue and conclude the dead."""
        full = now - self._full_sweep_at >= FULL_SWEEP_SECONDS
        by_place: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for name, state in self._ledger.entries.items():
            if state.instance_id and name in self._open.memories:
                by_place[self._open.memories[name].entry.place][state.instance_id] = name
        if full:
            self._full_sweep_at = now
        for place, machines in by_place.items():
            with self._open.isolated(machines.values()):
                self._look_at(place, machines, Round(now, full, kills))

    def _look_at(self, place: tuple[str, str], machines: dict[str, str], turn: Round) -> None:
        fleet = self._fleet_for(*place)
        seen = fleet.observe(
            list(machines),
            all_states=turn.is_full,
            launched_at=[self._launched_at(name, turn.now) for name in machines.values()],
        )
        if turn.is_full:
            seen += self._missing(machines, {o.instance_id for o in seen}, turn.now)
            self._impaired[place] = self._find_impaired(fleet)
        shown = {o.instance_id: o for o in seen}
        for instance_id, name in machines.items():
            # A machine that this look did not show is running, as far as anybody knows.
            observation = shown.get(instance_id, Observation(instance_id, "running"))
            is_impaired = instance_id in self._impaired.get(place, frozenset())
            look = Look(observation, turn.now, is_impaired)
            with self._open.isolated([name]):
                self._act_on(name, look, fleet, is_killed=name in turn.kills)

    def _launched_at(self, name: str, now: float) -> float:
        return self._ledger.entries[name].launched_at or now

    def _find_impaired(self, fleet: Fleet) -> frozenset[str]:
        try:
            return fleet.find_impaired()
        except AwsError as error:
            # It only makes a lost host known earlier; its deadline ends it all the same.
            log.warning("cannot ask for impaired hosts: %s", error)
            return frozenset()

    def _act_on(self, name: str, look: Look, fleet: Fleet, *, is_killed: bool) -> None:
        observation = look.observation
        self._ledger.set(name, is_ending=observation.state == "shutting-down")
        if observation.is_dead:
            self._conclude(name, look, fleet)
        elif observation.state == "shutting-down":
            self._press_on(name, look, fleet)
        elif is_killed:
            fleet.terminate([observation.instance_id])
        elif not self._open.memories[name].misses:
            # What a full sweep does not show is unknown, and no deadline can end it.
            self._end_overdue(name, look, fleet)

    def _conclude(self, name: str, look: Look, fleet: Fleet) -> None:
        observation = look.observation
        record = self._open.record_of(name)
        evidence = collect_evidence(self._store, record, observation)
        holder = evidence.other_holder(observation)
        if holder is not None:
            # Another machine of this attempt has the start lock: that one speaks for it.
            self._ledger.set(name, instance_id=holder, arn=evidence.holder_arn)
            return
        marker, has_console = None, False
        if evidence.report is None and observation.state == "terminated":
            found = self._last_words.read(record, evidence, look, fleet)
            if found is None:
                return
            marker, has_console = found
        elif isinstance(evidence.report, Report) and observation.state == "terminated":
            marker, has_console = self._last_words.cross_check(name, observation, fleet)
        verdict = evidence.judge(record.spec, observation, marker)
        if verdict is not None:
            report = evidence.report if isinstance(evidence.report, Report) else marker
            self.close(name, verdict, observation, report, has_console=has_console)

    def _press_on(self, name: str, look: Look, fleet: Fleet) -> None:
        """End a machine by force that does not come out of ``shutting-down``."""
        memory, instance_id = self._open.memories[name], look.observation.instance_id
        if memory.seconds_since("shutting-down", look.now) > STUCK_SECONDS:
            memory.tell(f"{instance_id} is shutting down for more than 10m: terminating by force")
            memory.since["shutting-down"] = look.now - STUCK_SECONDS + FULL_SWEEP_SECONDS
            fleet.terminate([instance_id], force=True)

    def _missing(self, machines: dict[str, str], seen: set[str], now: float) -> list[Observation]:
        gone = []
        for instance_id, name in machines.items():
            state, memory = self._ledger.entries[name], self._open.memories[name]
            memory.misses = 0 if instance_id in seen else memory.misses + 1
            is_old = now - (state.launched_at or now) > GONE_AFTER_SECONDS
            if is_old and memory.misses >= GONE_AFTER_MISSES:
                gone.append(Observation(instance_id, "gone", arn=state.arn or ""))
        return gone

    def _end_overdue(self, name: str, look: Look, fleet: Fleet) -> None:
        memory, observation, now = self._open.memories[name], look.observation, look.now
        entry = memory.entry
        launched_at = self._launched_at(name, now)
        impaired_for = memory.seconds_since("impaired", now, holds=look.is_impaired)
        due = is_overdue(entry, observation, launched_at, now, impaired_for)
        if due is None or (due.needs_free_lock and memory.is_started):
            return
        free = self._store.revoke_start_lock(entry, due.reason)
        if due.needs_free_lock and not free:
            memory.is_started = True
            return
        self._store.write_kill(name, Kill(due.reason, due.by))
        memory.tell(f"ending {observation.instance_id}: {due.reason}")
        fleet.terminate([observation.instance_id])

    def close(
        self,
        name: str,
        verdict: Verdict,
        observation: Observation | None = None,
        report: Report | None = None,
        *,
        has_console: bool = False,
    ) -> None:
        """Write the end of an attempt, and forget it."""
        state, entry = self._ledger.entries[name], self._open.memories[name].entry
        times = AdmissionTimes(state.admitted_at, state.launched_at)
        record = self._open.record_of(name)
        staleness = NOTHING_STALE
        if verdict.outcome is Outcome.SUCCEEDED:
            # Before the outcome: a crash in between marks again, and a mark is never missing.
            by_ec2 = observation.launched_at if observation else None
            launched_at = find_launch_time(state.launched_at, by_ec2, state.admitted_at)
            staleness = self._order.mark_stale(entry, record.spec.depends_on, launched_at)
        write_ending(
            self._store,
            record,
            verdict,
            times,
            observation,
            report,
            has_console=has_console,
            staleness=staleness,
        )
        self._order.forget(DatedKey.of(entry))
        self._when_closed(entry)
        if state.launched_at is not None and observation is not None:
            lived = self._store.clock.now() - state.launched_at
            self._lifetimes[entry.payer, entry.job] = lived
        if state.placement is not None and state.stage is Stage.LAUNCHED:
            fleet = self._fleet_for(*entry.place)
            self._backstop.disarm(fleet.clients, record.placements[state.placement].client_token)
        self._open.close(name)
        self._ledger.drop(name)
