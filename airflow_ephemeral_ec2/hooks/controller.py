"""The one loop: admits, launches, watches and concludes every open attempt of an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.launching import Launching
from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
from airflow_ephemeral_ec2.hooks.watching import Watching
from airflow_ephemeral_ec2.model.admission import Stage, admit, merge_arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.record import OutcomeRecord


class Controller:
    """
    One per process and environment; ``tick`` is one pass and may be called from any thread.

    Only the holder of the lease acts; the others follow the outcomes of the attempts they await.
    """

    def __init__(self, store: JobStore, fleet_for: Callable[[str, str], Fleet]) -> None:
        """Take the bucket, and a way to a fleet by Airflow connection and region."""
        self.store = store
        self._ledger = QueueLedger(store)
        self._open = OpenAttempts(store)
        self._watching = Watching(store, self._ledger, self._open, fleet_for)
        give_up = self._watching.give_up
        self._launching = Launching(store, self._ledger, self._open, fleet_for, give_up)

    # -- what waiters ask ------------------------------------------------------------------

    def machine_of(self, name: str) -> str | None:
        """Return the instance id of an open attempt once it is launched."""
        state = self._ledger.state.entries.get(name)
        return state.instance_id if state else None

    def story_of(self, name: str) -> tuple[str, ...]:
        """Tell what happened to an attempt so far, a line each, for its task log."""
        return self._open.story_of(name)

    def forget(self, name: str) -> None:
        """Drop the story of an attempt that nobody awaits any more."""
        self._open.forget(name)

    @property
    def has_work(self) -> bool:
        """Whether attempts are open that this process acts on."""
        return bool(self._open.memories)

    def follow(self, names: Iterable[str]) -> dict[str, OutcomeRecord]:
        """Make one pass and return the outcomes of those awaited attempts that have ended."""
        awaited = set(names)
        still_open = self.tick()
        self._open.keep_stories(still_open | awaited)
        ended = {}
        for name in awaited - still_open:
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
            self._open.memories.clear()
            return listing.entries
        self._open.refresh(listing)
        for name in listing.kills - listing.entries:
            self.store.close_entry(name)
        entries = [memory.entry for memory in self._open.memories.values()]
        self._ledger.state = merge_arrivals(self._ledger.state, entries, listing.entries)
        self._watching.watch(self.store.clock.now(), listing.kills)
        self._watching.end_unlaunched(listing.kills)
        if self._admit():
            self._launching.launch_admitted()
            self._ledger.save()
        return frozenset(self._open.memories) | (listing.entries - self._open.closed)

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        self._ledger.release()

    # -- admission and launch --------------------------------------------------------------

    def _admit(self) -> bool:
        entries = [memory.entry for memory in self._open.memories.values()]
        admission = admit(entries, self._ledger.state, blocked=self._blocked())
        now = self.store.clock.now()
        for name in admission.admitted:
            vcpus = self._open.memories[name].entry.vcpus
            self._ledger.set(name, stage=Stage.ADMITTED, admitted_at=now, vcpus=vcpus)
        for name, wait in admission.waiting.items():
            self._open.memories[name].tell_wait(wait.reason)
        return self._ledger.save()

    def _blocked(self) -> dict[str, str]:
        """Find the attempts that wait for their own predecessor."""
        blocked = {}
        for name, memory in self._open.memories.items():
            entry = memory.entry
            waits = self._ledger.state.entries[name].stage is Stage.WAITING
            if waits and entry.supersedes is not None:
                ended = self.store.read_outcome(entry.jobkey, entry.supersedes)
                if ended is None:
                    blocked[name] = f"attempt {entry.supersedes} is still being ended"
        return blocked
