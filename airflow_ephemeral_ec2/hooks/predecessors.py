"""Which attempts wait for the one before them, and what has to be read to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.model.identity import entry_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.model.queue import QueueEntry


def find_before(
    waiting: Collection[QueueEntry], open_names: Iterable[str]
) -> dict[str, tuple[str, int]]:
    """
    Return the name of each entry that may wait for an earlier attempt -> jobkey and number of that.

    It is the first one of its job that is open, or else the one that it supersedes. That one may
    have ended without a machine while the machine of one before it is still being ended: a task may
    be cleared twice within seconds.

    :param open_names: what is in the queue
    """
    first: dict[str, int] = {}
    for jobkey, _, attempt in (name.rpartition("-a") for name in open_names):
        if attempt.isdigit():
            first[jobkey] = min(int(attempt), first.get(jobkey, int(attempt)))
    before = {
        entry.name: (entry.jobkey, entry.supersedes)
        for entry in waiting
        if entry.supersedes is not None
    }
    return before | {
        entry.name: (entry.jobkey, first[entry.jobkey])
        for entry in waiting
        if first.get(entry.jobkey, entry.attempt) < entry.attempt
    }


def describe_before(number: int) -> str:
    """Say what an entry waits for, by the number of the earlier attempt."""
    return f"attempt {number} is still being ended"


class Predecessors:
    """The attempts that others supersede, as one controller knows them."""

    def __init__(self, store: JobStore, attempts: OpenAttempts, in_parallel: Parallel) -> None:
        self._store, self._open, self._in_parallel = store, attempts, in_parallel
        self._over: set[tuple[str, int]] = set()
        """Jobkey and attempt of those with an outcome: it is never taken back."""

    def find_obstacles(self, waiting: Collection[QueueEntry]) -> dict[str, str]:
        """
        Return the name of each entry that waits for the attempt before it -> why.

        :param waiting: entries that are not admitted; what is known for others is forgotten
        :raises AwsError: the bucket cannot be read
        """
        before = find_before(waiting, [*self._open.memories, *self._open.damaged])
        self._over.intersection_update(before.values())
        unknown = sorted(set(before.values()) - self._over)
        found = zip(unknown, self._in_parallel(self._is_over, unknown), strict=True)
        self._over.update(one for one, is_over in found if is_over)
        return {
            name: describe_before(one[1]) for name, one in before.items() if one not in self._over
        }

    def _is_over(self, one: tuple[str, int]) -> bool:
        name = entry_name(*one)
        if name in self._open.memories:
            return False
        try:
            return self._store.read_outcome(*one) is not None
        except TamperedObjectError:
            # It was written, by whomever; who ends the attempt takes it out of the queue last.
            return name not in self._open.damaged
