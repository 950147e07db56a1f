"""What one pass does about many attempts: at once, for so long, and while the lease holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.watch import plan_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger

BATCH_SIZE = 100
"""Between two looks at lease and time: some 800 calls of S3 in 16 threads, two or three seconds."""
PASS_SECONDS = 10.0
"""For so long one pass acts; those who wait for a launch or for word of an end come in between."""


@dataclass(frozen=True)
class Act:
    """What is to be done about one attempt."""

    name: str
    perform: Callable[[], None]
    is_queued: bool = False
    """Its attempt still waits for a machine."""


class Batches:
    """Performs acts; who has been acted on longest ago comes first, so that nobody is left out."""

    def __init__(
        self, store: JobStore, ledger: QueueLedger, attempts: OpenAttempts, in_parallel: Parallel
    ) -> None:
        self._store, self._ledger, self._open = store, ledger, attempts
        self._in_parallel = in_parallel
        self._until = 0.0

    def begin(self) -> None:
        """Begin the time of a pass."""
        self._until = self._store.clock.now() + PASS_SECONDS

    def perform(self, acts: Iterable[Act]) -> bool:
        """
        Perform what there is time for, at least one batch; False: the lease is lost.

        What is left over follows in the next pass: it is found again then.
        """
        by_name = {act.name: act for act in acts}
        memories = [self._open.memories[name] for name in by_name]
        memories.sort(key=lambda memory: memory.acted_at)
        batches = plan_batches([memory.entry for memory in memories], BATCH_SIZE)
        for number, batch in enumerate(batches):
            if number and self._store.clock.now() >= self._until:
                return True
            if not self._ledger.keep_lease():
                return False
            self._in_parallel(self._perform, [by_name[entry.name] for entry in batch])
        return True

    def _perform(self, act: Act) -> None:
        self._open.memories[act.name].acted_at = self._store.clock.now()
        with self._open.isolated([act.name], is_queued=act.is_queued):
            act.perform()
