"""Reads the queue for somebody who looks: nothing is written, and EC2 is not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.order_book import OrderBook
from airflow_ephemeral_ec2.hooks.parallel import in_threads
from airflow_ephemeral_ec2.hooks.predecessors import describe_before, find_before
from airflow_ephemeral_ec2.model.arrivals import merge_arrivals
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.queue import Stage, find_refusal
from airflow_ephemeral_ec2.model.queue_orders import QueueOrder, find_holds
from airflow_ephemeral_ec2.model.queue_view import QueueSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.model.order import DatedKey, FinishedAttempt
    from airflow_ephemeral_ec2.model.queue import QueueEntry, QueueState, Unavailable

_Found = TypeVar("_Found")
LOOK_AGAIN_SECONDS = 15.0
"""What jobs depend on is read again this often by one who keeps looking."""


class QueueReader:
    """The queue of one environment; what never changes is read once, however often one looks."""

    def __init__(self, store: JobStore, in_parallel: Parallel = in_threads) -> None:
        self.store, self._in_parallel = store, in_parallel
        self._entries: dict[str, QueueEntry] = {}
        self._orders: dict[str, QueueOrder] = {}
        self._damaged: set[str] = set()
        self._book = OrderBook(store, in_parallel)
        self._book_since = 0.0

    def read(self) -> QueueSnapshot:
        """
        Read the queue as it is now.

        Entries that the queue state does not know yet get the place that a controller would give
        them. History is read for those whose dependencies it decides about.

        :raises AwsError: the bucket cannot be read
        """
        listing = self.store.list_queue()
        state, lost = self._read_state()
        self._entries = self._update(self._entries, listing.entries, self._read_entry)
        self._orders = self._update(self._orders, listing.orders, self.store.read_order)
        self._damaged &= listing.entries
        entries = list(self._entries.values())
        orders = sorted(self._orders.values(), key=lambda order: (order.at, order.key))
        state = merge_arrivals(state, entries, listing.entries)
        now = self.store.clock.now()
        return QueueSnapshot(
            entries=entries,
            state=state,
            orders=orders,
            obstacles=self._find_obstacles(entries, state, orders, now),
            now=now,
            unreadable=tuple(sorted(self._damaged)),
            lost=lost if listing.entries else "",
        )

    def read_attempts(self, key: DatedKey) -> tuple[list[FinishedAttempt], frozenset[str]]:
        """Read the finished attempts of a job and date, and the names of those that are stale."""
        history = self.store.read_history(key)
        order = sorted(history.finished, key=lambda one: (one.jobkey, one.attempt))
        return order, history.stale

    def read_past_orders(self, key: DatedKey) -> list[QueueOrder]:
        """Read what was ever ordered for a job and date, or for all of its dates, in its order."""
        found = []
        for date in (key.business_date, "all-dates"):
            prefix = f"{self.store.environment}/history/{key.payer}/{key.job}/{date}/order-"
            for name in self.store.list_keys(prefix):
                try:
                    found.append(self.store.read_model(name, QueueOrder))
                except TamperedObjectError:
                    continue
        return sorted((order for order in found if order is not None), key=lambda o: o.at)

    def read_refused(self, entry: QueueEntry, snapshot: QueueSnapshot) -> dict[str, Unavailable]:
        """
        Read what EC2 has nothing left of among what a row asks for: offering or quota -> refusal.

        :raises AwsError: the launch record cannot be read
        """
        record = self.store.read_launch(entry.jobkey, entry.attempt)
        names = [
            name
            for index in range(len(record.placements))
            for name in (record.offering(index), record.quota(index))
        ]
        known = snapshot.state.unavailable
        return {
            name.partition("/")[2]: found
            for name in dict.fromkeys(names)
            if (found := find_refusal(known, name, snapshot.now)) is not None
        }

    def list_known(self) -> dict[str, tuple[str, ...]]:
        """Return payer -> jobs that were ever asked for."""
        prefix = f"{self.store.environment}/by-date/"
        payers = list(self.store.list_folders(prefix))
        jobs = self._in_parallel(
            lambda payer: tuple(self.store.list_folders(f"{prefix}{payer}/")), payers
        )
        return dict(zip(payers, jobs, strict=True))

    def _read_state(self) -> tuple[QueueState, str]:
        state, etag = self.store.read_state()
        if not state.is_rebuilt:
            return state, ""
        if etag is None:
            return state, "there is no queue state yet, or it was deleted"
        return state, "the queue state cannot be read, or is being rebuilt"

    def _read_entry(self, name: str) -> QueueEntry | None:
        try:
            return self.store.read_entry(name)
        except TamperedObjectError:
            self._damaged.add(name)
            return None

    def _update(
        self,
        known: dict[str, _Found],
        names: frozenset[str],
        read: Callable[[str], _Found | None],
    ) -> dict[str, _Found]:
        """Read what is new, and forget what is gone, also since the listing."""
        new = sorted(names - set(known))
        fresh = zip(new, self._in_parallel(read, new), strict=True)
        kept = {name: found for name, found in known.items() if name in names}
        return kept | {name: found for name, found in fresh if found is not None}

    def _find_obstacles(
        self,
        entries: list[QueueEntry],
        state: QueueState,
        orders: list[QueueOrder],
        now: float,
    ) -> dict[str, str]:
        """Say what waiting entries wait for of their own, as the controller would find it."""
        if now - self._book_since > LOOK_AGAIN_SECONDS:
            # What has ended since must be seen, and nobody tells this process of it.
            self._book = OrderBook(self.store, self._in_parallel)
            self._book_since = now
        book = self._book
        found = book.known_obstacles(entries, now)
        held = find_holds(entries, orders)
        asked = [
            entry
            for entry in entries
            if state.entries[entry.name].stage is Stage.WAITING
            and entry.name not in found
            and entry.name not in held
            and book.needs_check(entry)
        ]
        missing, _ = book.check(asked, now)
        return found | missing | self._predecessors(entries, state)

    def _predecessors(self, entries: list[QueueEntry], state: QueueState) -> dict[str, str]:
        names = {entry.name for entry in entries} | self._damaged
        waiting = [e for e in entries if state.entries[e.name].stage is Stage.WAITING]
        return {
            name: describe_before(one[1])
            for name, one in find_before(waiting, names).items()
            if entry_name(*one) in names or not self._is_over(*one)
        }

    def _is_over(self, jobkey: str, attempt: int) -> bool:
        try:
            return self.store.read_outcome(jobkey, attempt) is not None
        except TamperedObjectError:
            return True
