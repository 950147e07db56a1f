"""Admitted attempts -> machines, in the order of admission, at EC2's pace."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.launch_rate import LaunchRate, Turnstile
from airflow_ephemeral_ec2.hooks.launcher import Launched, Launcher, Pending, Progress, Refused
from airflow_ephemeral_ec2.model.arrivals import name_pool
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.lifetimes import scheduled_end
from airflow_ephemeral_ec2.model.queue import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import Backstop
    from airflow_ephemeral_ec2.hooks.open_attempts import Memory, OpenAttempts
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.admission import Rank
    from airflow_ephemeral_ec2.model.outcome import Observation, Verdict

GAVE_SECONDS = 60.0
"""For so long an offering that gave a machine is asked for by several jobs at once."""
UNUSABLE_SECONDS = 4.0
UNUSABLE_LIMIT = 60.0
"""Until a connection that could not be used is tried again; the first pause, and the longest."""
MOST_AT_ONCE = 8
"""Launches under way at the same time; EC2 answers RunInstances within a second or two."""


@dataclass(frozen=True)
class _Unusable:
    """A place whose connection has failed, and is left alone for so many seconds."""

    pause: float
    until: float
    """Bucket's clock."""


class Launching:
    """
    The launches of one controller.

    :param give_up: ends an attempt that no placement takes
    :param end_killed: ends an attempt that was killed before its launch
    :param renew: makes the AWS clients anew, when their credentials have expired
    :param rank_of: who of the admitted is launched first: the smaller one
    """

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        fleet_for: Callable[[str, str], Fleet],
        give_up: Callable[[str, Verdict], None],
        end_killed: Callable[[str], None],
        renew: Callable[[], None],
        backstop: Backstop,
        in_parallel: Parallel,
        rank_of: Callable[[str], Rank],
    ) -> None:
        self._in_parallel, self._end_killed, self._rank_of = in_parallel, end_killed, rank_of
        self._store, self._ledger, self._open = store, ledger, attempts
        self._fleet_for, self._give_up, self._renew = fleet_for, give_up, renew
        self._backstop = backstop
        self._gave_at: dict[str, float] = {}
        """Offering -> when it gave a machine (bucket's clock)."""
        self._unusable: dict[tuple[str, str], _Unusable] = {}
        self._rates: dict[str, LaunchRate] = defaultdict(
            lambda: LaunchRate(monotonic=store.clock.now)
        )
        """By account and region: EC2 counts there, whatever the connection."""

    def launch_admitted(self) -> None:
        """Ask EC2 for the machine of each admitted attempt whose turn it is."""
        for pool, names in self._find_ready().items():
            names.sort(key=self._turn)
            turns = min(self._rates[pool].turns, MOST_AT_ONCE)
            for waiting, name in enumerate(names[turns:], 1):
                self._open.memories[name].tell_pace(waiting)
            self._mark_asked(names[:turns])
            # Launching takes time; another controller may have taken over meanwhile.
            if not (self._ledger.take_lease() and self._ledger.save()):
                return
            self._in_parallel(
                functools.partial(self._launch, Turnstile(names[:turns])), names[:turns]
            )

    def _find_ready(self) -> dict[str, list[str]]:
        """Find whom EC2 can be asked for now, by the account and region that they count against."""
        now, states = self._store.clock.now(), self._ledger.entries
        accounts = self._ledger.state.accounts
        ready: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, memory in self._open.memories.items():
            is_due = memory.not_before <= now and not memory.is_given_up
            if states[name].stage is Stage.ADMITTED and is_due:
                ready[memory.entry.place].append(name)
        pools: dict[str, list[str]] = defaultdict(list)
        for place, names in ready.items():
            if self._can_use(place, names, now):
                for name in names:
                    pools[name_pool(self._open.memories[name].entry, accounts)].append(name)
        return pools

    def _can_use(self, place: tuple[str, str], names: Sequence[str], now: float) -> bool:
        """
        Make the clients of a place here, not by several threads at once; False: not now.

        A connection that is missing or refused holds up its own attempts alone, and is not tried
        in each pass: a role that cannot be assumed may take a minute to say so.
        """
        unusable = self._unusable.get(place)
        if unusable is not None and now < unusable.until:
            return False
        with self._open.isolated(names):
            self._fleet_for(*place)
            self._unusable.pop(place, None)
            return True
        pause = min(unusable.pause * 2, UNUSABLE_LIMIT) if unusable else UNUSABLE_SECONDS
        self._unusable[place] = _Unusable(pause, self._store.clock.now() + pause)
        return False

    def _turn(self, name: str) -> tuple[bool, object]:
        """Who was asked for already comes first, then the more important."""
        return not self._ledger.entries[name].is_asked, self._rank_of(name)

    def _mark_asked(self, names: Sequence[str]) -> None:
        """Write down whom EC2 is about to be asked for: whoever takes over must ask again."""
        for name in names:
            state = self._ledger.entries[name]
            if state.is_asked:
                continue
            memory = self._open.memories[name]
            if memory.progress.may_have_asked:
                memory.progress = Progress(may_have_asked=state.may_have_asked)
            self._ledger.set(name, is_asked=True)

    def _launch(self, turnstile: Turnstile, name: str) -> None:
        def wait_for_turn(offering: str) -> None:
            now = self._store.clock.now()
            is_there = now - self._gave_at.get(offering, -math.inf) < GAVE_SECONDS
            turnstile.enter(name, offering, is_there=is_there)

        try:
            with self._open.isolated([name]):
                self._launch_one(name, wait_for_turn)
        finally:
            turnstile.leave(name)

    def _launch_one(self, name: str, when_my_turn: Callable[[str], None]) -> None:
        memory = self._open.memories[name]
        if self._has_ended(name):
            return
        memory.record = record = self._open.record_of(name)
        fleet = self._fleet_for(*memory.entry.place)
        rate = self._rates[name_pool(memory.entry, self._ledger.state.accounts)]
        launcher = Launcher(fleet, self._store, rate, self._ledger, when_my_turn)
        answer = launcher.launch(record, memory.progress)
        now = self._store.clock.now()
        match answer:
            case Launched(placement, machine):
                self._note_launch(name, placement, machine, now)
                self._arm(memory, placement, machine, fleet)
                memory.record = None
            case Pending(placement, seconds, why, is_expired):
                if is_expired:
                    self._renew()
                self._ledger.set(name, placement=placement)
                if not memory.progress.may_have_asked:
                    # EC2 has surely launched nothing: the more important go first again.
                    self._ledger.set(name, is_asked=False, may_have_asked=False)
                memory.not_before = now + seconds
                memory.tell_wait(why)
            case Refused(verdict):
                self._give_up(name, verdict)

    def _has_ended(self, name: str) -> bool:
        """Look before each question to EC2: the queue is not listed as often as EC2 is asked."""
        lock = self._store.read_start_lock(self._open.memories[name].entry)
        if lock is not None and self._open.finish_closing(name):
            # Somebody wrote its entry again, after its end.
            self._open.close(name)
            self._ledger.drop(name)
            return True
        if lock is not None and lock.revoked:
            # Killed since the queue was listed.
            self._end_killed(name)
            return True
        return False

    def _note_launch(self, name: str, placement: int, machine: Observation, now: float) -> None:
        memory, state = self._open.memories[name], self._ledger.entries[name]
        record = self._open.record_of(name)
        self._gave_at[record.offering(placement)] = now
        self._ledger.set(
            name,
            stage=Stage.LAUNCHED,
            placement=placement,
            instance_id=machine.instance_id,
            arn=machine.arn,
            launched_at=now,
            vcpus=record.placements[placement].vcpus,
            market=machine.capacity_type,
            word="",
        )
        asked = format_duration(max(now - (state.admitted_at or now), 0))
        memory.story.append(
            f"admitted, launched {machine.instance_id} ({machine.instance_type} "
            f"{machine.capacity_type}) in {machine.availability_zone}; {asked}"
        )

    def _arm(self, memory: Memory, placement: int, machine: Observation, fleet: Fleet) -> None:
        record = self._open.record_of(memory.entry.name)
        launched_at = machine.launched_at or self._store.clock.now()
        ends_at = scheduled_end(launched_at, record.spec.max_lifetime_seconds)
        token = record.placements[placement].client_token
        problem = self._backstop.arm(fleet.clients, token, machine.instance_id, ends_at)
        if problem is not None:
            memory.tell(problem)
