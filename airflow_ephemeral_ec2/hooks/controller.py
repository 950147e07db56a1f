"""The one loop: admits, launches, watches and concludes every open attempt of an environment."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import BucketError, EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.endings import AdmissionTimes, find_verdict, write_ending
from airflow_ephemeral_ec2.hooks.launcher import Launched, Launcher, LaunchRate, Pending, Refused
from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
from airflow_ephemeral_ec2.model.admission import (
    EntryState,
    QueueEntry,
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
    from collections.abc import Callable, Iterable, Iterator

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore, QueueListing
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.record import OutcomeRecord

FULL_SWEEP_SECONDS = 60.0
GONE_AFTER_SECONDS = 900.0
"""An instance that EC2 does not show is not gone before this age (EC2: eventual consistency)."""


@dataclass
class _Memory:
    """What this process remembers of an open attempt; all of it can be read again."""

    entry: QueueEntry
    record: LaunchRecord
    story: list[str]
    not_before: float = 0.0
    last_wait: str = ""
    is_started: bool = False
    """The machine is known to hold the start lock."""
    may_have_launched: bool = False


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
        self._memories: dict[str, _Memory] = {}
        self._stories: dict[str, list[str]] = {}
        self._full_sweep_at = 0.0

    # -- what waiters ask ------------------------------------------------------------------

    def story_of(self, name: str) -> tuple[str, ...]:
        """Tell what happened to an attempt so far, a line each, for its task log."""
        return tuple(self._stories.get(name, ()))

    def machine_of(self, name: str) -> str | None:
        """Return the instance id of an open attempt once it is launched."""
        state = self._ledger.state.entries.get(name)
        return state.instance_id if state else None

    def forget(self, name: str) -> None:
        """Drop the story of an attempt that nobody awaits any more."""
        if name not in self._memories:
            self._stories.pop(name, None)

    @property
    def has_work(self) -> bool:
        """Whether attempts are open that this process acts on."""
        return bool(self._memories)

    def follow(self, names: Iterable[str]) -> dict[str, OutcomeRecord]:
        """Make one pass and return the outcomes of those awaited attempts that have ended."""
        still_open = self.tick()
        ended = {}
        for name in set(names) - still_open:
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
            self._memories.clear()
            return listing.entries
        self._remember(listing)
        for name in listing.kills - listing.entries:
            self.store.close_entry(name)
        entries = [memory.entry for memory in self._memories.values()]
        self._ledger.state = merge_arrivals(self._ledger.state, entries)
        self._watch(self.store.clock.now(), listing.kills)
        self._end_unlaunched(listing.kills)
        if self._admit():
            self._launch()
            self._ledger.save()
        return frozenset(self._memories)

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        self._ledger.release()

    def _remember(self, listing: QueueListing) -> None:
        for name in set(self._memories) - listing.entries:
            del self._memories[name]
        for name in listing.entries - set(self._memories):
            try:
                entry = self.store.read_entry(name)
                if entry is not None:
                    record = self.store.read_launch(entry.jobkey, entry.attempt)
                    story = self._stories.setdefault(name, [])
                    self._memories[name] = _Memory(entry, record, story)
            except BucketError as error:
                # One record that cannot be read must not hold up everybody else's.
                self._stories[name] = [f"cannot be launched: {error}"]

    @contextlib.contextmanager
    def _isolated(self, names: Iterable[str]) -> Iterator[None]:
        """Let a refusal that concerns some attempts hold up only these, and tell them."""
        try:
            yield
        except EphemeralEC2Error as error:
            if error.retryable:
                raise
            for name in names:
                if name in self._memories:
                    self._tell_wait(self._memories[name], f"{error} Will ask again.")

    # -- admission and launch --------------------------------------------------------------

    def _admit(self) -> bool:
        entries = [memory.entry for memory in self._memories.values()]
        admission = admit(entries, self._ledger.state, blocked=self._blocked())
        now = self.store.clock.now()
        for name in admission.admitted:
            vcpus = self._memories[name].entry.vcpus
            self._ledger.set(name, stage=Stage.ADMITTED, admitted_at=now, vcpus=vcpus)
        for name, wait in admission.waiting.items():
            self._tell_wait(self._memories[name], wait.reason)
        return self._ledger.save()

    def _tell_wait(self, memory: _Memory, reason: str) -> None:
        if memory.last_wait != reason:
            memory.last_wait = reason
            memory.story.append(f"queued: {reason}")

    def _blocked(self) -> dict[str, str]:
        """Find the attempts that wait for their own predecessor."""
        blocked = {}
        for name, memory in self._memories.items():
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
            for name, memory in self._memories.items()
            if states[name].stage is Stage.ADMITTED and memory.not_before <= now
        ]
        ready.sort(key=lambda pair: admission_order(pair[1].entry, states[pair[0]]))
        for name, memory in ready:
            with self._isolated([name]):
                self._launch_one(name, memory, states[name])

    def _launch_one(self, name: str, memory: _Memory, state: EntryState) -> None:
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
            case Pending(placement, seconds, why, may_have_launched):
                self._ledger.set(name, placement=placement)
                memory.may_have_launched = memory.may_have_launched or may_have_launched
                memory.not_before = now + seconds
                self._tell_wait(memory, why)
            case Refused(verdict):
                self._close(name, verdict)

    # -- watching and endings --------------------------------------------------------------

    def _end_unlaunched(self, kills: frozenset[str]) -> None:
        now = self.store.clock.now()
        for name, memory in list(self._memories.items()):
            stage, entry = self._ledger.state.entries[name].stage, memory.entry
            if stage is Stage.LAUNCHED or memory.may_have_launched:
                continue
            if name in kills:
                kill = self.store.read_kill(name) or Kill("cancelled")
                outcome = Outcome.SUPERSEDED if kill.reason == "superseded" else Outcome.KILLED
                self._close(name, Verdict(outcome, f"{kill.reason} before it was launched"))
            elif entry.max_wait is not None and now - entry.requested_at > entry.max_wait:
                waited = format_duration(entry.max_wait)
                reason = f"not launched within max_wait ({waited}); {memory.last_wait}"
                self._close(name, Verdict(Outcome.WAIT_TIMEOUT, reason))

    def _watch(self, now: float, kills: frozenset[str]) -> None:
        full = now - self._full_sweep_at >= FULL_SWEEP_SECONDS
        by_place: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for name, state in self._ledger.state.entries.items():
            if state.instance_id:
                spec = self._memories[name].record.spec
                by_place[spec.aws_conn_id, spec.region][state.instance_id] = name
        if full:
            self._full_sweep_at = now
        for place, machines in by_place.items():
            with self._isolated(machines.values()):
                fleet = self._fleet_for(*place)
                seen = fleet.observe(list(machines), all_states=full)
                if full:
                    seen += self._missing(machines, {o.instance_id for o in seen}, now)
                shown = {o.instance_id: o for o in seen}
                for instance_id, name in machines.items():
                    # A machine that this look did not show is running, as far as anybody knows.
                    unseen = Observation(instance_id, "running")
                    observation = shown.get(instance_id, unseen)
                    with self._isolated([name]):
                        self._act_on(name, observation, fleet, now, is_killed=name in kills)

    def _act_on(
        self, name: str, observation: Observation, fleet: Fleet, now: float, *, is_killed: bool
    ) -> None:
        if observation.is_dead:
            verdict, report = find_verdict(self.store, self._memories[name].record, observation)
            if verdict is not None:
                self._close(name, verdict, observation, report)
        elif is_killed and observation.state != "shutting-down":
            fleet.terminate([observation.instance_id])
        else:
            self._end_overdue(name, observation, fleet, now)

    def _missing(self, machines: dict[str, str], seen: set[str], now: float) -> list[Observation]:
        gone = []
        for instance_id, name in machines.items():
            state = self._ledger.state.entries[name]
            if instance_id not in seen and now - (state.launched_at or now) > GONE_AFTER_SECONDS:
                gone.append(Observation(instance_id, "gone", arn=state.arn or ""))
        return gone

    def _end_overdue(self, name: str, observation: Observation, fleet: Fleet, now: float) -> None:
        memory = self._memories[name]
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
        record = self._memories[name].record
        write_ending(self.store, record, verdict, times, observation, report)
        del self._memories[name]
        self._ledger.drop(name)
