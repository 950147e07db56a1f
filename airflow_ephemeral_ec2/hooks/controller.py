"""The one loop: admits, launches, watches and concludes every open attempt of an environment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.launcher import Progress
from airflow_ephemeral_ec2.hooks.launching import Launching
from airflow_ephemeral_ec2.hooks.lifetime_schedule import NoBackstop
from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
from airflow_ephemeral_ec2.hooks.tampered_attempts import TamperedAttempts
from airflow_ephemeral_ec2.hooks.watching import Watching
from airflow_ephemeral_ec2.model.admission import Stage, admit, merge_arrivals
from airflow_ephemeral_ec2.model.identity import entry_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import Backstop
    from airflow_ephemeral_ec2.model.record import OutcomeRecord

log = logging.getLogger(__name__)


class Controller:
    """
    One per process and environment; ``tick`` is one pass and may be called from any thread.

    Only the holder of the lease acts; the others follow the outcomes of the attempts they await.
    """

    def __init__(
        self,
        store: JobStore,
        fleet_for: Callable[[str, str], Fleet],
        renew: Callable[[], None] = lambda: None,
        backstop: Backstop | None = None,
    ) -> None:
        """
        Take the bucket, and a way to a fleet by Airflow connection and region.

        :param renew: makes ``fleet_for`` use fresh clients, when credentials have expired
        :param backstop: ends a machine from outside, should every controller be dead
        """
        self.store = store
        self._fleet_for = fleet_for
        self._ledger = QueueLedger(store)
        self._open = OpenAttempts(store)
        backstop = backstop or NoBackstop()
        self._watching = Watching(store, self._ledger, self._open, fleet_for, backstop)
        self._tampered = TamperedAttempts(store, self._ledger, self._open, fleet_for)
        self._launching = Launching(
            store, self._ledger, self._open, fleet_for, self._watching.give_up, renew, backstop
        )

    # -- what waiters ask ------------------------------------------------------------------

    def machine_of(self, name: str) -> str | None:
        """Return the instance id of an open attempt once it is launched."""
        state = self._ledger.state.entries.get(name)
        return state.instance_id if state else None

    def story_of(self, name: str) -> tuple[str, ...]:
        """Tell what happened to an attempt so far, a line each, for its task log."""
        return self._open.story_of(name)

    def tampering_with(self, name: str) -> TamperedObjectError | None:
        """Return why an attempt can never be concluded, if so little of it can be read."""
        return self._open.tampered.get(name)

    def forget(self, name: str) -> None:
        """Drop the story of an attempt that nobody awaits any more."""
        self._open.forget(name)

    @property
    def has_work(self) -> bool:
        """Whether attempts are open that this process acts on."""
        return bool(self._open.memories or self._open.damaged)

    def follow(self, names: Iterable[str]) -> dict[str, OutcomeRecord]:
        """Make one pass and return the outcomes of those awaited attempts that have ended."""
        awaited = set(names)
        still_open = self.tick()
        self._open.keep_stories(still_open | awaited)
        ended = {}
        for name in awaited - still_open:
            jobkey, _, attempt = name.rpartition("-a")
            try:
                outcome = self.store.read_outcome(jobkey, int(attempt))
            except TamperedObjectError as error:
                self._open.tampered[name] = error
                continue
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
            self._open.let_go()
            return listing.entries
        self._open.refresh(listing)
        for name in listing.kills - listing.entries:
            self.store.close_entry(name)
        entries = [memory.entry for memory in self._open.memories.values()]
        self._ledger.state = merge_arrivals(self._ledger.state, entries, listing.entries)
        if self._ledger.state.is_rebuilt:
            self._find_machines()
        self._watching.watch(self.store.clock.now(), listing.kills)
        self._watching.end_unlaunched(listing.kills)
        self._tampered.end()
        if self._admit():
            self._launching.launch_admitted()
            self._ledger.save()
        return frozenset(self._open.memories) | (listing.entries - self._open.closed)

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        self._ledger.release()

    def _find_machines(self) -> None:
        """
        Ask EC2 what is out, after the queue state was lost; nobody is admitted before that.

        :raises AwsError: EC2 could not be asked; the next pass goes on
        """
        log.error("the queue state could not be read: rebuilding it from the queue and from EC2")
        places = {
            (memory.record.spec.aws_conn_id, memory.record.spec.region)
            for memory in self._open.memories.values()
        }
        for place in places:
            for name, machine in self._fleet_for(*place).find_machines():
                memory = self._open.memories.get(name)
                if memory is not None and not machine.is_dead:
                    self._ledger.set(
                        name,
                        stage=Stage.LAUNCHED,
                        instance_id=machine.instance_id,
                        arn=machine.arn,
                        launched_at=machine.launched_at or self.store.clock.now(),
                        vcpus=memory.entry.vcpus,
                    )
                    memory.tell(f"found {machine.instance_id} again after the queue state was lost")
        self._ledger.state = self._ledger.state.model_copy(update={"is_rebuilt": False})

    # -- admission and launch --------------------------------------------------------------

    def _admit(self) -> bool:
        entries = [memory.entry for memory in self._open.memories.values()]
        admission = admit(entries, self._ledger.state, blocked=self._blocked())
        now = self.store.clock.now()
        for name in admission.admitted:
            vcpus = self._open.memories[name].entry.vcpus
            self._ledger.set(name, stage=Stage.ADMITTED, admitted_at=now, vcpus=vcpus)
            # Nobody can have asked for its machine before this moment.
            self._open.memories[name].progress = Progress(may_have_asked=False)
        for name, wait in admission.waiting.items():
            self._open.memories[name].tell_wait(wait.reason)
        return self._ledger.save()

    def _blocked(self) -> dict[str, str]:
        """Find the attempts that wait for their own predecessor."""
        blocked = {}
        for name, memory in self._open.memories.items():
            entry = memory.entry
            waits = self._ledger.state.entries[name].stage is Stage.WAITING
            if not waits or entry.supersedes is None:
                continue
            if not self._is_over(entry.jobkey, entry.supersedes):
                blocked[name] = f"attempt {entry.supersedes} is still being ended"
        return blocked

    def _is_over(self, jobkey: str, attempt: int) -> bool:
        try:
            return self.store.read_outcome(jobkey, attempt) is not None
        except TamperedObjectError:
            # It was written, by whomever; who ends the attempt takes it out of the queue last.
            name = entry_name(jobkey, attempt)
            return name not in self._open.damaged and name not in self._open.memories
