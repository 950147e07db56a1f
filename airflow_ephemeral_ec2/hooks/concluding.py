"""Dead machines -> recorded outcomes; several attempts may be concluded at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.endings import (
    AdmissionTimes,
    collect_evidence,
    write_ending,
)
from airflow_ephemeral_ec2.hooks.last_words import LastWords, Look
from airflow_ephemeral_ec2.hooks.rearming import find_token
from airflow_ephemeral_ec2.model.order import NOTHING_STALE, DatedKey, find_launch_time
from airflow_ephemeral_ec2.model.outcome import Observation, Outcome, Verdict
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.report import Report
from airflow_ephemeral_ec2.model.watch import QUIET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.endings import Evidence
    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import Backstop
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.order_book import OrderBook
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.queue import QueueEntry

GONE = "gone"
"""State of a machine that EC2 has not shown for long, as ``Observation`` has it."""


class Concluding:
    """
    The ends of one controller's attempts.

    :param when_closed: called with each attempt whose outcome is written
    """

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
        self._lifetimes: dict[tuple[str, str], float] = {}
        """Payer and job -> seconds from launch to the end that was seen last."""

    def expects_end(self, now: float, within: float) -> bool:
        """Whether a machine will have lived as long as the last of the same job, within seconds."""
        for name, memory in self._open.memories.items():
            lived = self._lifetimes.get((memory.entry.payer, memory.entry.job))
            # One that was read when the lease was lost has no place in the queue yet.
            state = self._ledger.entries.get(name) if lived else None
            launched_at = state.launched_at if state else None
            if lived and launched_at and 0 <= launched_at + lived - now + within <= 2 * within:
                return True
        return False

    def conclude(self, name: str, look: Look, fleet: Fleet) -> None:
        """
        Judge an attempt whose machine is dead, and record how it has ended.

        :raises AwsError: something cannot be read or written now; nothing is concluded
        """
        observation = look.observation
        if observation.state == GONE:
            # Should it run on all the same, shown to nobody: it must not outlive its attempt.
            fleet.terminate([observation.instance_id])
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
        if verdict is not None and self._end_others(name, verdict, evidence, look, fleet):
            reason = verdict.reason
            if evidence.is_lock_free and not self._store.revoke_start_lock(record, reason, verdict):
                # Another machine of this attempt has just taken it: the next look follows that one.
                return
            report = evidence.report if isinstance(evidence.report, Report) else marker
            self.close(name, verdict, observation, report, has_console=has_console)

    def _end_others(
        self, name: str, verdict: Verdict, evidence: Evidence, look: Look, fleet: Fleet
    ) -> bool:
        """
        End what else lives of an attempt, where nothing says who had its work; True: nothing does.

        There are others only after a double launch, or where the start lock names a machine that
        nobody knows. An ordinary end costs no look at EC2: there the lock says who it was, and any
        other machine that finds it taken ends by itself.
        """
        observation, memory = look.observation, self._open.memories[name]
        is_told = evidence.lock is not None and evidence.lock.instance_id == observation.instance_id
        if is_told and verdict.outcome is not Outcome.TAMPERED and observation.state != GONE:
            return True
        entry = memory.entry
        others = [
            machine.instance_id
            for machine in fleet.find_attempt(entry.jobkey, entry.attempt)
            if not machine.is_dead and machine.instance_id != observation.instance_id
        ]
        for instance_id in others:
            memory.tell(f"ending {instance_id} too: {verdict.reason}")
        fleet.terminate(others)
        if others or evidence.lock is None or not evidence.lock.is_foreign:
            return not others
        # EC2 may be late to show who took the lock before somebody wrote over it.
        launched_at = observation.launched_at or self._ledger.entries[name].launched_at
        if launched_at is not None and look.now - launched_at >= QUIET_SECONDS:
            return True
        memory.tell(f"its end; {verdict.reason}, so EC2 is asked for other machines of the attempt")
        return False

    def close(
        self,
        name: str,
        verdict: Verdict,
        observation: Observation | None = None,
        report: Report | None = None,
        *,
        has_console: bool = False,
    ) -> None:
        """
        Record an outcome, and take the attempt out of the queue and out of all that is known.

        :raises AwsError: the bucket cannot be written now; doing it again is harmless
        """
        state, entry = self._ledger.entries[name], self._open.memories[name].entry
        times = AdmissionTimes(state.admitted_at, state.launched_at)
        record = self._open.record_of(name)
        staleness = NOTHING_STALE
        if verdict.outcome is Outcome.SUCCEEDED:
            # Before the outcome: a crash in between marks again, and a mark is never missing.
            by_ec2 = observation.launched_at if observation else None
            locked_at = report.locked_at if report else None
            launched_at = find_launch_time(state.launched_at, by_ec2, state.admitted_at, locked_at)
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
        token = find_token(entry, state, observation)
        if token and state.stage is Stage.LAUNCHED and self._backstop.is_wanted:
            self._backstop.disarm(self._fleet_for(*entry.place).clients, token)
        self._open.close(name)
        self._ledger.drop(name)
