"""Admitted attempts -> machines, in the order of admission, at EC2's pace."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.launch_rate import LaunchRate
from airflow_ephemeral_ec2.hooks.launcher import Launched, Launcher, Pending, Refused
from airflow_ephemeral_ec2.model.admission import EntryState, Stage, admission_order
from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.lifetimes import scheduled_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import Backstop
    from airflow_ephemeral_ec2.hooks.open_attempts import Memory, OpenAttempts
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.outcome import Observation, Verdict


class Launching:
    """
    The launches of one controller.

    :param give_up: ends an attempt that no placement takes
    :param renew: makes the AWS clients anew, when their credentials have expired
    """

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        fleet_for: Callable[[str, str], Fleet],
        give_up: Callable[[str, Verdict], None],
        renew: Callable[[], None],
        backstop: Backstop,
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._fleet_for, self._give_up, self._renew = fleet_for, give_up, renew
        self._backstop = backstop
        self._rates: dict[tuple[str, str], LaunchRate] = defaultdict(
            lambda: LaunchRate(monotonic=store.clock.now)
        )

    def launch_admitted(self) -> None:
        """Ask EC2 for the machine of each admitted attempt whose turn it is."""
        now, states = self._store.clock.now(), self._ledger.state.entries
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
        fleet, rate = self._fleet_for(*place), self._rates[place]
        answer = Launcher(fleet, self._store, rate, self._ledger).launch(record, memory.progress)
        now = self._store.clock.now()
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
                self._arm(memory, placement, machine, fleet)
                asked = format_duration(max(now - (state.admitted_at or now), 0))
                memory.story.append(
                    f"admitted, launched {machine.instance_id} ({machine.instance_type} "
                    f"{machine.capacity_type}) in {machine.availability_zone}; {asked}"
                )
            case Pending(placement, seconds, why, is_expired):
                if is_expired:
                    self._renew()
                self._ledger.set(name, placement=placement)
                memory.not_before = now + seconds
                memory.tell_wait(why)
            case Refused(verdict):
                self._give_up(name, verdict)

    def _arm(self, memory: Memory, placement: int, machine: Observation, fleet: Fleet) -> None:
        record = memory.record
        launched_at = machine.launched_at or self._store.clock.now()
        ends_at = scheduled_end(launched_at, record.spec.max_lifetime_seconds)
        token = record.placements[placement].client_token
        problem = self._backstop.arm(fleet.clients, token, machine.instance_id, ends_at)
        if problem is not None:
            memory.tell(problem)
