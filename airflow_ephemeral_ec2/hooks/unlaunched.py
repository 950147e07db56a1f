"""Ends attempts that have no machine as far as anybody knows: killed, refused or out of time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.batches import Act
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.judging import judge_revocation, judge_unlaunched
from airflow_ephemeral_ec2.model.outcome import (
    Kill,
    Outcome,
    Verdict,
)
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.watch import LOOK_SECONDS, QUIET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.batches import Batches
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.outcome import Observation, StartLock

ENDED_ON_PURPOSE = frozenset({Outcome.KILLED, Outcome.SUPERSEDED, Outcome.TAMPERED})
"""Also a machine that has begun the work is ended for these."""


class Unlaunched:
    """
    The ends before a launch of one controller.

    :param close: writes the end of an attempt
    """

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        fleet_for: Callable[[str, str], Fleet],
        batches: Batches,
        close: Callable[[str, Verdict], None],
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._fleet_for, self._batches, self._close = fleet_for, batches, close

    def end(self, kills: frozenset[str]) -> bool:
        """
        End attempts without a machine that were killed or have waited too long.

        False: the lease is lost. Who is left over when time is up follows in the next pass.
        """
        now, acts = self._store.clock.now(), []
        for name, memory in self._open.memories.items():
            stage, entry = self._ledger.entries[name].stage, memory.entry
            if stage is Stage.LAUNCHED:
                continue
            if name in kills or memory.is_given_up:
                acts.append(Act(name, functools.partial(self.end_killed, name), is_queued=True))
            elif entry.max_wait is not None and now - entry.requested_at > entry.max_wait:
                waited = format_duration(entry.max_wait)
                waits = f"; {memory.last_wait}" if memory.last_wait else ""
                reason = f"not launched within max_wait ({waited}){waits}"
                verdict = Verdict(Outcome.WAIT_TIMEOUT, reason)
                give_up = functools.partial(self.give_up, name, verdict)
                acts.append(Act(name, give_up, is_queued=True))
        return self._batches.perform(acts)

    def end_killed(self, name: str) -> None:
        """End an attempt that was killed, or given up by somebody who died over it."""
        kill = self._store.read_kill(name)
        lock = None if kill else self._store.read_start_lock(self._open.memories[name].entry)
        if lock is not None and lock.revoked:
            self.give_up(name, judge_revocation(lock))
        else:
            self.give_up(name, judge_unlaunched(kill or Kill("cancelled")))

    def give_up(self, name: str, verdict: Verdict) -> None:
        """
        End an attempt that has no machine as far as this process knows; others may know better.

        A launch whose answer was lost may have a machine. First its start lock is revoked: then
        nobody can begin the work. If a machine was faster, it is watched instead; and where
        nobody has EC2's answer, machines are looked for as long as EC2 may be late to show one.

        :raises TamperedObjectError: nobody can know from the start lock who was faster
        """
        memory, now = self._open.memories[name], self._store.clock.now()
        entry, state = memory.entry, self._ledger.entries[name]
        lock = None
        if not self._store.revoke_start_lock(entry, verdict.reason, verdict):
            lock = self._store.read_start_lock(entry)
        if lock is not None and lock.is_foreign:
            # Whoever had it before may work: all machines are ended, and waited for, before the end.
            raise TamperedObjectError(self._store.lock_uri(entry), f"{lock.fault}.")
        has_begun = lock is not None and lock.instance_id is not None
        if has_begun and verdict.outcome not in ENDED_ON_PURPOSE:
            self._watch(name, lock, [])
            return
        if state.stage is Stage.WAITING and not has_begun:
            self._close(name, verdict)
            return
        if memory.is_given_up and memory.not_before > now:
            return
        fleet = self._fleet_for(*entry.place)
        found = fleet.find_attempt(entry.jobkey, entry.attempt)
        alive = [machine for machine in found if not machine.is_dead]
        fleet.terminate([machine.instance_id for machine in alive])
        if has_begun or alive:
            self._store.write_kill(name, Kill.of(verdict))
            self._watch(name, lock, alive)
        elif found or self._is_quiet(name, now):
            self._close(name, verdict)

    def _is_quiet(self, name: str, now: float) -> bool:
        """Whether EC2 would show a machine by now if it had launched one."""
        memory = self._open.memories[name]
        if not memory.progress.is_unclear:
            return True
        if memory.seconds_since("given up", now) >= QUIET_SECONDS:
            return True
        memory.is_given_up, memory.not_before = True, now + LOOK_SECONDS
        left = format_duration(QUIET_SECONDS)
        memory.tell_wait(f"its end; EC2 may have launched a machine and is looked at for {left}")
        return False

    def _watch(self, name: str, lock: StartLock | None, alive: list[Observation]) -> None:
        """Let the machine that has the work, or may still live, speak for the attempt."""
        state, holder = self._ledger.entries[name], lock.instance_id if lock else None
        arn = lock.arn if lock and holder else alive[0].arn
        self._ledger.set(
            name,
            stage=Stage.LAUNCHED,
            instance_id=holder or alive[0].instance_id,
            arn=arn or None,
            launched_at=state.admitted_at or self._store.clock.now(),
        )
