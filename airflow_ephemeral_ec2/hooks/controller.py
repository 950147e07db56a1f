"""The one loop: admits, launches, watches and concludes every open attempt of an environment."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.endings import AdmissionTimes, find_verdict, write_ending
from airflow_ephemeral_ec2.hooks.launcher import Launched, Launcher, LaunchRate, Pending, Refused
from airflow_ephemeral_ec2.model.admission import (
    EntryState,
    Lease,
    QueueEntry,
    QueueState,
    Stage,
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
    from airflow_ephemeral_ec2.hooks.job_store import JobStore, QueueListing
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.record import OutcomeRecord

LEASE_SECONDS = 60.0
FULL_SWEEP_SECONDS = 60.0
GONE_AFTER_SECONDS = 900.0
"""An instance that EC2 does not show is not gone before this age (EC2: eventual consistency)."""


@dataclass
class _Memory:
    """What this process remembers of an open attempt; all of it can be read again."""

    entry: QueueEntry
    record: LaunchRecord | None = None
    not_before: float = 0.0
    story: list[str] = field(default_factory=list)
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
        self._me = secrets.token_hex(8)
        self._state = QueueState()
        self._etag: str | None = None
        self._saved = self._state
        self._is_stale = True
        self._memories: dict[str, _Memory] = {}
        self._stories: dict[str, list[str]] = {}
        self._full_sweep_at = 0.0

    # -- what waiters ask ------------------------------------------------------------------

    def story_of(self, name: str) -> tuple[str, ...]:
        """Tell what happened to an attempt so far, a line each, for its task log."""
        return tuple(self._stories.get(name, ()))

    def machine_of(self, name: str) -> str | None:
        """Return the instance id of an open attempt once it is launched."""
        state = self._state.entries.get(name)
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
        if not self._take_lease():
            self._memories.clear()
            return listing.entries
        self._remember(listing)
        for name in listing.kills - listing.entries:
            self.store.close_entry(name)
        entries = [memory.entry for memory in self._memories.values()]
        self._state = merge_arrivals(self._state, entries)
        self._watch(self.store.clock.now(), listing.kills)
        self._end_unlaunched(listing.kills)
        if self._admit():
            self._launch()
            self._save()
        return frozenset(self._memories)

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        if self._state.lease is not None and self._state.lease.holder == self._me:
            self._state = self._state.model_copy(update={"lease": None})
            self._save()

    def _take_lease(self) -> bool:
        if self._is_stale:
            self._state, self._etag = self.store.read_state()
            self._saved = self._state
            self._is_stale = False
        now, lease = self.store.clock.now(), self._state.lease
        if lease is not None and lease.holder != self._me:
            if now < lease.expires_at:
                self._is_stale = True
                return False
        elif lease is not None and lease.expires_at - now > LEASE_SECONDS / 2:
            return True
        fresh = Lease(holder=self._me, expires_at=now + LEASE_SECONDS)
        self._state = self._state.model_copy(update={"lease": fresh})
        return self._save()

    def _save(self) -> bool:
        """Write the queue state if it changed; False when somebody else was first."""
        if self._state == self._saved:
            return True
        etag = self.store.write_state(self._state, self._etag)
        if etag is None:
            self._is_stale = True
            return False
        self._etag, self._saved = etag, self._state
        return True

    def _remember(self, listing: QueueListing) -> None:
        for name in set(self._memories) - listing.entries:
            del self._memories[name]
        for name in listing.entries - set(self._memories):
            entry = self.store.read_entry(name)
            if entry is not None:
                memory = _Memory(entry)
                memory.story = self._stories.setdefault(name, [])
                self._memories[name] = memory

    def _record(self, memory: _Memory) -> LaunchRecord:
        if memory.record is None:
            memory.record = self.store.read_launch(memory.entry.jobkey, memory.entry.attempt)
        return memory.record

    def _set(self, name: str, **changes: object) -> None:
        entries = dict(self._state.entries)
        entries[name] = entries[name].model_copy(update=changes)
        self._state = self._state.model_copy(update={"entries": entries})

    # -- admission and launch --------------------------------------------------------------

    def _admit(self) -> bool:
        entries = [memory.entry for memory in self._memories.values()]
        admission = admit(entries, self._state, blocked=self._blocked())
        now = self.store.clock.now()
        for name in admission.admitted:
            vcpus = self._memories[name].entry.vcpus
            self._set(name, stage=Stage.ADMITTED, admitted_at=now, vcpus=vcpus)
        for name, wait in admission.waiting.items():
            self._tell_wait(self._memories[name], wait.reason)
        return self._save()

    def _tell_wait(self, memory: _Memory, reason: str) -> None:
        if memory.last_wait != reason:
            memory.last_wait = reason
            memory.story.append(f"queued: {reason}")

    def _blocked(self) -> dict[str, str]:
        """Find the attempts that wait for their own predecessor."""
        blocked = {}
        for name, memory in self._memories.items():
            entry = memory.entry
            waits = self._state.entries[name].stage is Stage.WAITING
            if waits and entry.supersedes is not None:
                ended = self.store.read_outcome(entry.jobkey, entry.supersedes)
                if ended is None:
                    blocked[name] = f"attempt {entry.supersedes} is still being ended"
        return blocked

    def _launch(self) -> None:
        now = self.store.clock.now()
        for name, memory in list(self._memories.items()):
            state = self._state.entries[name]
            if state.stage is Stage.ADMITTED and memory.not_before <= now:
                self._launch_one(name, memory, state)

    def _launch_one(self, name: str, memory: _Memory, state: EntryState) -> None:
        record = self._record(memory)
        place = (record.spec.aws_conn_id, record.spec.region)
        launcher = Launcher(self._fleet_for(*place), self.store, self._rates[place])
        answer = launcher.launch(record, state.placement or 0)
        now = self.store.clock.now()
        match answer:
            case Launched(placement, machine):
                self._set(
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
                self._set(name, placement=placement)
                memory.may_have_launched = memory.may_have_launched or may_have_launched
                memory.not_before = now + seconds
                self._tell_wait(memory, why)
            case Refused(verdict):
                self._close(name, verdict)

    # -- watching and endings --------------------------------------------------------------

    def _end_unlaunched(self, kills: frozenset[str]) -> None:
        now = self.store.clock.now()
        for name, memory in list(self._memories.items()):
            stage, entry = self._state.entries[name].stage, memory.entry
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
        for name, state in self._state.entries.items():
            if state.instance_id:
                spec = self._record(self._memories[name]).spec
                by_place[spec.aws_conn_id, spec.region][state.instance_id] = name
        for place, machines in by_place.items():
            fleet = self._fleet_for(*place)
            seen = fleet.observe(list(machines), all_states=full)
            if full:
                self._full_sweep_at = now
                seen += self._missing(machines, {o.instance_id for o in seen}, now)
            shown = {o.instance_id: o for o in seen}
            for instance_id, name in machines.items():
                # A machine that this look did not show is running, as far as anybody knows.
                observation = shown.get(instance_id, Observation(instance_id, "running"))
                if observation.is_dead:
                    self._conclude(name, observation)
                elif name in kills and observation.state != "shutting-down":
                    fleet.terminate([instance_id])
                else:
                    self._end_overdue(name, observation, fleet, now)

    def _missing(self, machines: dict[str, str], seen: set[str], now: float) -> list[Observation]:
        gone = []
        for instance_id, name in machines.items():
            state = self._state.entries[name]
            if instance_id not in seen and now - (state.launched_at or now) > GONE_AFTER_SECONDS:
                gone.append(Observation(instance_id, "gone", arn=state.arn or ""))
        return gone

    def _end_overdue(self, name: str, observation: Observation, fleet: Fleet, now: float) -> None:
        memory = self._memories[name]
        record = self._record(memory)
        launched_at = self._state.entries[name].launched_at or now
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

    def _conclude(self, name: str, observation: Observation) -> None:
        record = self._record(self._memories[name])
        verdict, report = find_verdict(self.store, record, observation)
        if verdict is not None:
            self._close(name, verdict, observation, report)

    def _close(
        self,
        name: str,
        verdict: Verdict,
        observation: Observation | None = None,
        report: Report | None = None,
    ) -> None:
        state = self._state.entries[name]
        times = AdmissionTimes(state.admitted_at, state.launched_at)
        record = self._record(self._memories[name])
        write_ending(self.store, record, verdict, times, observation, report)
        del self._memories[name]
        entries = {key: value for key, value in self._state.entries.items() if key != name}
        self._state = self._state.model_copy(update={"entries": entries})
