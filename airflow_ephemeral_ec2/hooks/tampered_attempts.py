"""Attempts of which something in the bucket is not ours: fenced, their machines ended, concluded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.model.outcome import Budget, Outcome, Verdict
from airflow_ephemeral_ec2.model.record import conclude_tampered
from airflow_ephemeral_ec2.model.watch import LOOK_SECONDS, QUIET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.queue import Place, QueueEntry


class TamperedAttempts:
    """
    Ends the damaged attempts of one controller; none of them is believed, launched or retried.

    What can still be read decides how: the nonce (of entry or launch record) revokes the start
    lock, the tags find the machines. The outcome is ``tampered``.

    :param home: where to look for the machines of an attempt of which nothing can be read, beside
        the places of the others
    """

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        fleet_for: Callable[[str, str], Fleet],
        home: Place | None = None,
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._fleet_for = fleet_for
        self._home = {home} if home else set()
        self._not_before: dict[str, float] = {}
        self._quiet_since: dict[str, float] = {}

    def end(self) -> None:
        """Bring each damaged attempt closer to its end."""
        now, damaged = self._store.clock.now(), self._open.damaged
        for known in (self._not_before, self._quiet_since):
            for name in known.keys() - damaged.keys():
                del known[name]
        for name, damage in list(damaged.items()):
            if self._not_before.get(name, now) <= now:
                self._not_before[name] = now + LOOK_SECONDS
                with self._open.isolated([name]):
                    self._end_one(name, damage, now)

    def _end_one(self, name: str, damage: TamperedObjectError, now: float) -> None:
        entry = self._open.read_any_entry(name)
        # With its verdict: whoever goes on after a crash must not take it for a kill.
        verdict = Verdict(Outcome.TAMPERED, str(damage), Budget.NONE)
        is_fenced = entry is not None and self._store.revoke_start_lock(
            entry, verdict.reason, verdict
        )
        places = self._places_of(entry)
        if not places:
            # Nobody may say of a machine that it is gone who does not know where it was.
            self._open.tell(name, "not ended yet: nobody knows where its machine would be")
            return
        if self._end_machines(name, places):
            self._quiet_since.pop(name, None)
            return
        quiet = now - self._quiet_since.setdefault(name, now)
        # Where the start lock cannot be revoked, a machine that is not shown yet could still begin.
        if is_fenced or quiet >= QUIET_SECONDS:
            self._close(name, entry, damage)

    def _places_of(self, entry: QueueEntry | None) -> Collection[Place]:
        if entry is not None and entry.region:
            return [entry.place]
        return sorted(self._home.union(self._ledger.state.places))

    def _end_machines(self, name: str, places: Collection[Place]) -> bool:
        """Terminate the machines of an attempt; True while one lives."""
        jobkey, _, number = name.rpartition("-a")
        lives = False
        for place in places:
            fleet = self._fleet_for(*place)
            alive = [
                machine.instance_id
                for machine in fleet.find_attempt(jobkey, int(number))
                if not machine.is_dead
            ]
            fleet.terminate(alive)
            lives = lives or bool(alive)
            for instance_id in alive:
                self._open.tell(name, f"ending {instance_id}: its attempt was tampered with")
        return lives

    def _close(self, name: str, entry: QueueEntry | None, damage: TamperedObjectError) -> None:
        outcome = conclude_tampered(name, entry, str(damage), self._store.clock.now())
        try:
            self._store.write_outcome(outcome)
        except TamperedObjectError as error:
            # It is the outcome that is not ours: who waits is told when he reads it.
            self._open.tell(name, str(error))
        self._store.close_entry(name)
        self._open.close(name)
        self._ledger.drop(name)
