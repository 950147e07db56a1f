"""The queue state is gone: what is out there is asked of EC2, place by place."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.parallel import while_leased
from airflow_ephemeral_ec2.model.arrivals import name_pool
from airflow_ephemeral_ec2.model.queue import Place, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.outcome import Observation

log = logging.getLogger(__name__)


class Rebuilding:
    """Makes the queue state of one controller again from the queue and from EC2."""

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        fleet_for: Callable[[str, str], Fleet],
        in_parallel: Parallel,
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._fleet_for, self._in_parallel = fleet_for, in_parallel
        self._asked: dict[Place, int] = {}
        self._adoptions = 0

    def find_machines(self) -> Mapping[Place, str]:
        """
        Ask EC2 what is out, where it has not answered yet.

        Returns the places of which nothing is known still, and why: nobody is admitted there.
        """
        places = {memory.entry.place for memory in self._open.memories.values()}
        unknown = {}
        if self._adoptions != self._ledger.adoptions:
            # What was noted may not be in the state that was read since.
            self._asked, self._adoptions = {}, self._ledger.adoptions
        unasked = sorted(places - set(self._asked))
        answers = while_leased(self._in_parallel, self._ledger.keep_lease, self._ask, unasked)
        for place, found in zip(unasked, answers, strict=True):
            if isinstance(found, AwsError):
                unknown[place] = f"{found} Will ask again."
                continue
            self._asked[place] = sum(self._note(name, machine) for name, machine in found)
        if not unknown:
            self._ledger.end_rebuilding(has_machines=any(self._asked.values()))
            self._asked = {}
        return unknown

    def _ask(self, place: Place) -> list[tuple[str, Observation]] | AwsError:
        log.info("no queue state: asking EC2 in %s what is out", place[1])
        try:
            return self._fleet_for(*place).find_machines()
        except AwsError as error:
            return error

    def _note(self, name: str, machine: Observation) -> bool:
        """Note a machine that is out; its attempt is launched."""
        memory = self._open.memories.get(name)
        if machine.is_dead:
            return False
        if memory is None:
            return True
        self._ledger.set(
            name,
            stage=Stage.LAUNCHED,
            instance_id=machine.instance_id,
            arn=machine.arn,
            launched_at=machine.launched_at or self._store.clock.now(),
            vcpus=memory.entry.vcpus,
            pool=name_pool(memory.entry, self._ledger.state.accounts),
            market=machine.capacity_type,
        )
        memory.tell(f"found {machine.instance_id} again after the queue state was lost")
        return True
