"""The one loop: admits, launches, watches and concludes every open attempt of an environment."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.admitting import Admitting
from airflow_ephemeral_ec2.hooks.batches import Batches
from airflow_ephemeral_ec2.hooks.concluding import Concluding
from airflow_ephemeral_ec2.hooks.launching import Launching
from airflow_ephemeral_ec2.hooks.lifetime_schedule import ArmedOnce, NoBackstop
from airflow_ephemeral_ec2.hooks.open_attempts import READ_AT_ONCE, OpenAttempts
from airflow_ephemeral_ec2.hooks.order_book import OrderBook
from airflow_ephemeral_ec2.hooks.parallel import in_threads
from airflow_ephemeral_ec2.hooks.predecessors import Predecessors
from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
from airflow_ephemeral_ec2.hooks.queue_store import EMPTY_QUEUE, QueueListing
from airflow_ephemeral_ec2.hooks.rearming import Rearming
from airflow_ephemeral_ec2.hooks.rebuilding import Rebuilding
from airflow_ephemeral_ec2.hooks.standing_by import StandingBy
from airflow_ephemeral_ec2.hooks.tampered_attempts import TamperedAttempts
from airflow_ephemeral_ec2.hooks.unlaunched import Unlaunched
from airflow_ephemeral_ec2.hooks.watching import Watching
from airflow_ephemeral_ec2.model.queue import Stage, describe_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.fleet import Fleet
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.lifetime_schedule import Backstop
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.model.queue import Place
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
        in_parallel: Parallel = in_threads,
        *,
        list_every: int = 1,
        refresh: Callable[[], None] = lambda: None,
        home: Place | None = None,
    ) -> None:
        """
        Take the bucket, and a way to a fleet by Airflow connection and region.

        :param renew: makes ``fleet_for`` use fresh clients, when credentials have expired
        :param backstop: ends a machine from outside, should every controller be dead
        :param in_parallel: makes many reads, and some launches, at once
        :param list_every: passes of which one lists the queue; a name that is new here is at once
            looked for, and EC2 is asked in each pass
        :param refresh: called before each pass, to look the connection up again
        :param home: connection and region of the environment
        """
        self.store = store
        self._in_parallel, self._list_every, self._look_up = in_parallel, list_every, refresh
        self._listing: QueueListing | None = None
        self._unlisted = self._adoptions = 0
        self._standing_by = StandingBy(store, list_every)
        self._theirs: frozenset[str] = frozenset()
        """Whom the state of the queue named in the last pass in which another acted."""
        self._fleet_for = fleet_for
        self._ledger = QueueLedger(store)
        self._open = OpenAttempts(store, in_parallel)
        order = OrderBook(store, in_parallel)
        armed = ArmedOnce(backstop or NoBackstop())
        predecessors = Predecessors(store, self._open, in_parallel)
        self._admitting = Admitting(
            store, self._ledger, self._open, order, predecessors, in_parallel
        )
        concluding = Concluding(
            store, self._ledger, self._open, order, fleet_for, armed,
            self._admitting.end_promotions,
        )  # fmt: skip
        batches = Batches(store, self._ledger, self._open, in_parallel)
        self._concluding = concluding
        self._watching = Watching(
            store, self._ledger, self._open, concluding, fleet_for, batches, in_parallel,
            Rearming(self._ledger, self._open, armed),
        )  # fmt: skip
        self._unlaunched = Unlaunched(
            store, self._ledger, self._open, fleet_for, batches, concluding.close
        )
        self._rebuilding = Rebuilding(store, self._ledger, self._open, fleet_for, in_parallel)
        self._tampered = TamperedAttempts(store, self._ledger, self._open, fleet_for, home)
        self._launching = Launching(
            store, self._ledger, self._open, fleet_for, self._unlaunched.give_up,
            self._unlaunched.end_killed, renew, armed, in_parallel, self._admitting.rank_of,
        )  # fmt: skip

    # -- what waiters ask ------------------------------------------------------------------

    def machine_of(self, name: str) -> str | None:
        """Return the instance id of an open attempt once it is launched."""
        state = self._ledger.entries.get(name)
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

    @property
    def has_launches(self) -> bool:
        """Whether attempts are admitted and wait for their launch, by this controller."""
        if self._ledger.is_held_elsewhere:
            return False
        return any(state.stage is Stage.ADMITTED for state in self._ledger.entries.values())

    def expects_end(self, within: float) -> bool:
        """Whether a machine will have run as long as the same job did last time, within seconds."""
        return self._concluding.expects_end(self.store.clock.now(), within)

    def follow(self, names: Iterable[str]) -> dict[str, OutcomeRecord]:
        """Make one pass and return the outcomes of those awaited attempts that have ended."""
        awaited = set(names)
        still_open = self.tick(awaited, may_skip_listing=True)
        self._open.keep_stories(still_open | awaited)
        over, found = sorted(awaited - still_open), []
        for start in range(0, len(over), READ_AT_ONCE):
            found += self._in_parallel(self._read_ending, over[start : start + READ_AT_ONCE])
            self._ledger.keep_lease()
        return {name: end for name, end in zip(over, found, strict=True) if end is not None}

    def _read_ending(self, name: str) -> OutcomeRecord | None:
        jobkey, _, attempt = name.rpartition("-a")
        try:
            return self.store.read_outcome(jobkey, int(attempt))
        except TamperedObjectError as error:
            self._open.tampered[name] = error
            return None

    # -- one pass --------------------------------------------------------------------------

    def tick(
        self, awaited: AbstractSet[str] = frozenset(), *, may_skip_listing: bool = False
    ) -> frozenset[str]:
        """
        Make one pass: read the queue, end what is over, admit, launch; return what is still open.

        :param awaited: names that somebody here waits for
        :param may_skip_listing: the queue of the last listing will do, if all of these are in it
        :raises AwsError: AWS could not be asked; nothing is lost, the next pass goes on
        """
        self._look_up()
        if not self._may_act(awaited, may_skip_listing=may_skip_listing):
            self._open.let_go()
            self._listing = None
            return self._stand_by(awaited, may_skip_listing=may_skip_listing)
        self._standing_by.forget()
        if self._ledger.adoptions != self._adoptions:
            # Others may have acted since the last pass: what they have ended is no new arrival.
            self._listing, self._adoptions = None, self._ledger.adoptions
        fresh = self._list_queue(awaited, may_skip_listing=may_skip_listing)
        if not self._refresh(fresh):
            return fresh.entries if fresh else frozenset()
        listing, is_lost = self._listing or EMPTY_QUEUE, self._ledger.must_be_rebuilt
        entries = [memory.entry for memory in self._open.memories.values()]
        self._ledger.merge(entries, listing.entries)
        unknown = self._rebuilding.find_machines() if is_lost else {}
        if self._end(listing):
            self._tampered.end()
            if self._admitting.admit(listing.orders, unknown):
                self.launch()
        return self._still_open

    def _end(self, listing: QueueListing) -> bool:
        """End and conclude, as far as there is time; False: the lease was lost meanwhile."""
        is_mine = self._watching.watch(self.store.clock.now(), listing.kills)
        return is_mine and self._unlaunched.end(listing.kills)

    @property
    def _still_open(self) -> frozenset[str]:
        listed = (self._listing or EMPTY_QUEUE).entries
        return frozenset(self._open.memories) | (listed - self._open.closed)

    def _may_act(self, awaited: AbstractSet[str], *, may_skip_listing: bool) -> bool:
        spares = may_skip_listing and self._standing_by.may_spare_the_state
        if spares and self._standing_by.must_list(awaited) and self._ledger.is_held_elsewhere:
            return False
        return self._ledger.take_lease()

    def _stand_by(self, awaited: AbstractSet[str], *, may_skip_listing: bool) -> frozenset[str]:
        """Follow what another controller does; return what is still open."""
        before, self._theirs = self._theirs, frozenset(self._ledger.entries)
        for name in awaited & self._theirs:
            line = describe_state(self._ledger.entries[name])
            if line:
                self._open.hear(name, line)
        if may_skip_listing and not self._standing_by.must_list(awaited):
            return self._standing_by.leave_out(before - self._theirs)
        listed = self._standing_by.list()
        self._open.keep_entries(listed)
        return listed

    def launch(self) -> None:
        """Launch those admitted whose turn it is, between two passes."""
        adoptions = self._ledger.adoptions
        if self._ledger.take_lease():
            if self._ledger.adoptions != adoptions:
                # Others have acted meanwhile: the next pass reads the queue before anything is done.
                self._listing = None
            if self._listing is None:
                return
            self._launching.launch_admitted()
            self._tampered.end()
            self._ledger.note_words(self._open.words())
            self._ledger.save()

    def _list_queue(
        self, awaited: AbstractSet[str], *, may_skip_listing: bool
    ) -> QueueListing | None:
        """List the queue when it is time, or when somebody waits for a name that is new here."""
        self._unlisted += 1
        known = self._open.memories.keys() | self._open.damaged.keys()
        is_known = self._listing is not None and awaited <= known
        if may_skip_listing and is_known and self._unlisted < self._list_every:
            return None
        self._unlisted = 0
        return self.store.list_queue()

    def _refresh(self, listing: QueueListing | None) -> bool:
        """Take a listing in, or what is known without one; False: the lease was lost meanwhile."""
        if listing is None:
            known = frozenset(self._open.memories) | frozenset(self._open.damaged)
            self._listing = dataclasses.replace(self._listing or EMPTY_QUEUE, entries=known)
            self._open.closed = set()
            return True
        # Until all of it is read it is no listing to go by: who is not in one loses his place.
        self._listing = None
        is_lost, keep = self._ledger.must_be_rebuilt, self._ledger.keep_lease
        if not self._open.refresh(listing, self._ledger.entries, keep, is_lost=is_lost):
            return False
        self._listing = listing
        for name in listing.kills - listing.entries:
            self.store.close_entry(name)
        return True

    def close(self) -> None:
        """Take the lease no more: a pass that is under way ends without another launch."""
        self._ledger.close()

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        self._ledger.release()
