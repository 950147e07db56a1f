"""The one loop: admits, launches, watches and concludes every open attempt of an environment."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.endings import AdmissionTimes, find_verdict, write_ending
from airflow_ephemeral_ec2.hooks.launcher import Launched, Launcher, LaunchRate, Pending, Refused
from airflow_ephemeral_ec2.hooks.open_attempts import Memory, OpenAttempts
from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
from airflow_ephemeral_ec2.model.admission import (
    EntryState,
    Stage,
    admission_order,
    admit,
    merge_arrivals,
)
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.outcome import (
    Kill,
    Observation,
    Outcome,
    Report,
    Verdict,
)
from airflow_ephemeral_ec2.model.watch import is_overdue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.record import OutcomeRecord

log = logging.getLogger(__name__)
FULL_SWEEP_SECONDS = 60.0
GONE_AFTER_SECONDS = 3_600.0
GONE_AFTER_MISSES = 3
"""An instance that EC2 does not show is not gone before it is this old and was missed this often."""


class Controller:
    """
    One per process and environment; ``tick`` is one pass and may be called from any thread.

    Only the holder of the lease acts; the others follow the outcomes of the attempts they await.
    """

    def __init__(self, store: JobStore, fleet_for: Callable[[str, str], Fleet]) -> None:
        """Take the bucket, and a way to a fleet by Airflow connection and region."""
        self.store = store
        self._fleet_for = fleet_for
        self._rates: dict[tuple[str, str], LaunchRate] = defaultdict(LaunchRate)
        self._ledger = QueueLedger(store)
        self._open = OpenAttempts(store)
        self._full_sweep_at = 0.0

    # -- what waiters ask ------------------------------------------------------------------

    def machine_of(self, name: str) -> str | None:
        """Return the instance id of an open attempt once it is launched."""
        state = self._ledger.state.entries.get(name)
        return state.instance_id if state else None

    def story_of(self, name: str) -> tuple[str, ...]:
        """Tell what happened to an attempt so far, a line each, for its task log."""
        return self._open.story_of(name)

    def forget(self, name: str) -> None:
        """Drop the story of an attempt that nobody awaits any more."""
        self._open.forget(name)

    @property
    def has_work(self) -> bool:
        """Whether attempts are open that this process acts on."""
        return bool(self._open.memories)

    def follow(self, names: Iterable[str]) -> dict[str, OutcomeRecord]:
        """Make one pass and return the outcomes of those awaited attempts that have ended."""
        awaited = set(names)
        still_open = self.tick()
        self._open.keep_stories(still_open | awaited)
        ended = {}
        for name in awaited - still_open:
            jobkey, _, attempt = name.rpartition("-a")
            outcome = self.store.read_outcome(jobkey, int(attempt))
            if outcome is not None:
                ended[name] = outcome
        return ended

    # -- one pass --------------------------------------------------------------------------

    def tick(self) -> frozenset[str]:
        """
        Make one pass: read the queue, end what is over, admit, launch; return what is still open.

        :raises AwsError: AWS could not be asked; nothing is lost, the next pass goes on
        """
        listing = self.store.list_queue()
        if not self._ledger.take_lease():
            self._open.memories.clear()
            return listing.entries
        self._open.refresh(listing)
        for name in listing.kills - listing.entries:
            self.store.close_entry(name)
        entries = [memory.entry for memory in self._open.memories.values()]
        self._ledger.state = merge_arrivals(self._ledger.state, entries, listing.entries)
        self._watch(self.store.clock.now(), listing.kills)
        self._end_unlaunched(listing.kills)
        if self._admit():
            self._launch()
            self._ledger.save()
        return frozenset(self._open.memories) | (listing.entries - self._open.closed)

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        self._ledger.release()

    # -- admission and launch --------------------------------------------------------------

    def _admit(self) -> bool:
        entries = [memory.entry for memory in self._open.memories.values()]
        admission = admit(entries, self._ledger.state, blocked=self._blocked())
        now = self.store.clock.now()
        for name in admission.admitted:
            vcpus = self._open.memories[name].entry.vcpus
            self._ledger.set(name, stage=Stage.ADMITTED, admitted_at=now, vcpus=vcpus)
        for name, wait in admission.waiting.items():
            self._open.memories[name].tell_wait(wait.reason)
        return self._ledger.save()

    def _blocked(self) -> dict[str, str]:
        """Find the attempts that wait for their own predecessor."""
        blocked = {}
        for name, memory in self._open.memories.items():
            entry = memory.entry
            waits = self._ledger.state.entries[name].stage is Stage.WAITING
            if waits and entry.supersedes is not None:
                ended = self.store.read_outcome(entry.jobkey, entry.supersedes)
                if ended is None:
                    blocked[name] = f"attempt {entry.supersedes} is still being ended"
        return blocked

    def _launch(self) -> None:
        now, states = self.store.clock.now(), self._ledger.state.entries
        ready = [
            (name, memory)
            for name, memory in self._open.memories.items()
            if states[name].stage is Stage.ADMITTED and memory.not_before <= now
        ]
        ready.sort(key=lambda pair: admission_order(pair[1].entry, states[pair[0]]))
        for name, memory in ready:
            # Launching takes time; another controller may have taken over meanwhile.
            if not self._ledger.take_lease():
                return
            with self._open.isolated([name]):
                self._launch_one(name, memory, states[name])

    def _launch_one(self, name: str, memory: Memory, state: EntryState) -> None:
        record = memory.record
        place = (record.spec.aws_conn_id, record.spec.region)
        launcher = Launcher(self._fleet_for(*place), self.store, self._rates[place])
        answer = launcher.launch(record, state.placement or 0)
        now = self.store.clock.now()
        match answer:
            case Launched(placement, machine):
                self._ledger.set(
                    name,
                    stage=Stage.LAUNCHED,
                    placement=placement,
                    instance_id=machine.instance_id,
                    arn=machine.arn,
                    launched_at=now,
                    vcpus=record.placements[placement].vcpus,
                )
                asked = format_duration(max(now - (state.admitted_at or now), 0))
                memory.story.append(
                    f"admitted, launched {machine.instance_id} ({machine.instance_type} "
                    f"{machine.capacity_type}) in {machine.availability_zone}; {asked}"
                )
            case Pending(placement, seconds, why):
                self._ledger.set(name, placement=placement)
                memory.not_before = now + seconds
                memory.tell_wait(why)
            case Refused(verdict):
                self._give_up(name, verdict)

    # -- watching and endings --------------------------------------------------------------

    def _end_unlaunched(self, kills: frozenset[str]) -> None:
        now = self.store.clock.now()
        for name, memory in list(self._open.memories.items()):
            stage, entry = self._ledger.state.entries[name].stage, memory.entry
            if stage is Stage.LAUNCHED:
                continue
            verdict = None
            if name in kills:
                kill = self.store.read_kill(name) or Kill("cancelled")
                outcome = Outcome.SUPERSEDED if kill.reason == "superseded" else Outcome.KILLED
                verdict = Verdict(outcome, f"{kill.reason} before it was launched")
            elif entry.max_wait is not None and now - entry.requested_at > entry.max_wait:
                waited = format_duration(entry.max_wait)
                reason = f"not launched within max_wait ({waited}); {memory.last_wait}"
                verdict = Verdict(Outcome.WAIT_TIMEOUT, reason)
            if verdict is not None:
                with self._open.isolated([name]):
                    self._give_up(name, verdict)

    def _give_up(self, name: str, verdict: Verdict) -> None:
        """
        End an attempt that has no machine as far as this process knows; others may know better.

        A launch whose answer was lost may have a machine. First its start lock is revoked: then
        nobody can begin the work. If a machine was faster, it is watched instead.
        """
        memory, state = self._open.memories[name], self._ledger.state.entries[name]
        record = memory.record
        is_free = self.store.revoke_start_lock(record, verdict.reason)
        machines = []
        if state.stage is not Stage.WAITING or not is_free:
            fleet = self._fleet_for(record.spec.aws_conn_id, record.spec.region)
            machines = fleet.find_attempt(record.jobkey, record.attempt)
            fleet.terminate([m.instance_id for m in machines if not m.is_dead])
        lock = None if is_free else self.store.read_start_lock(record)
        holder = lock.instance_id if lock else None
        alive = [m.instance_id for m in machines if not m.is_dead]
        if holder is None and not alive:
            self._close(name, verdict)
            return
        self.store.write_kill(name, Kill(verdict.reason))
        launched_at = state.admitted_at or self.store.clock.now()
        self._ledger.set(
            name, stage=Stage.LAUNCHED, instance_id=holder or alive[0], launched_at=launched_at
        )

    def _watch(self, now: float, kills: frozenset[str]) -> None:
        full = now - self._full_sweep_at >= FULL_SWEEP_SECONDS
        by_place: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for name, state in self._ledger.state.entries.items():
            if state.instance_id and name in self._open.memories:
                spec = self._open.memories[name].record.spec
                by_place[spec.aws_conn_id, spec.region][state.instance_id] = name
        if full:
            self._full_sweep_at = now
        for place, machines in by_place.items():
            with self._open.isolated(machines.values()):
                fleet = self._fleet_for(*place)
                seen = fleet.observe(list(machines), all_states=full)
                if full:
                    seen += self._missing(machines, {o.instance_id for o in seen}, now)
                shown = {o.instance_id: o for o in seen}
                for instance_id, name in machines.items():
                    # A machine that this look did not show is running, as far as anybody knows.
                    unseen = Observation(instance_id, "running")
                    observation = shown.get(instance_id, unseen)
                    with self._open.isolated([name]):
                        self._act_on(name, observation, fleet, now, is_killed=name in kills)

    def _act_on(
        self, name: str, observation: Observation, fleet: Fleet, now: float, *, is_killed: bool
    ) -> None:
        if observation.is_dead:
            record = self._open.memories[name].record
            verdict, report, holder = find_verdict(self.store, record, observation)
            if holder is not None:
                # Another machine of this attempt has the start lock: that one speaks for it.
                self._ledger.set(name, instance_id=holder, arn=None)
            elif verdict is not None:
                self._close(name, verdict, observation, report)
        elif is_killed and observation.state != "shutting-down":
            fleet.terminate([observation.instance_id])
        else:
            self._end_overdue(name, observation, fleet, now)

    def _missing(self, machines: dict[str, str], seen: set[str], now: float) -> list[Observation]:
        gone = []
        for instance_id, name in machines.items():
            state, memory = self._ledger.state.entries[name], self._open.memories[name]
            memory.misses = 0 if instance_id in seen else memory.misses + 1
            is_old = now - (state.launched_at or now) > GONE_AFTER_SECONDS
            if is_old and memory.misses >= GONE_AFTER_MISSES:
                gone.append(Observation(instance_id, "gone", arn=state.arn or ""))
        return gone

    def _end_overdue(self, name: str, observation: Observation, fleet: Fleet, now: float) -> None:
        memory = self._open.memories[name]
        record = memory.record
        launched_at = self._ledger.state.entries[name].launched_at or now
        due = is_overdue(record.spec, observation, launched_at, now)
        if due is None or (due.needs_free_lock and memory.is_started):
            return
        free = self.store.revoke_start_lock(record, due.reason)
        if due.needs_free_lock and not free:
            memory.is_started = True
            return
        self.store.write_kill(name, Kill(due.reason))
        memory.story.append(f"ending {observation.instance_id}: {due.reason}")
        fleet.terminate([observation.instance_id])

    def _close(
        self,
        name: str,
        verdict: Verdict,
        observation: Observation | None = None,
        report: Report | None = None,
    ) -> None:
        state = self._ledger.state.entries[name]
        times = AdmissionTimes(state.admitted_at, state.launched_at)
        record = self._open.memories[name].record
        write_ending(self.store, record, verdict, times, observation, report)
        self._open.close(name)
        self._ledger.drop(name)
