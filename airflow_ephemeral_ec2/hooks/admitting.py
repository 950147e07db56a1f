"""Who may launch now: the pure decision, and what has to be read for it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.launcher import Progress
from airflow_ephemeral_ec2.model.admission import Admission, Rank, admit, rank
from airflow_ephemeral_ec2.model.arrivals import name_pool
from airflow_ephemeral_ec2.model.order import DatedKey
from airflow_ephemeral_ec2.model.queue import Stage, recall
from airflow_ephemeral_ec2.model.queue_forming import form_queue
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, QueueOrder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.open_attempts import OpenAttempts
    from airflow_ephemeral_ec2.hooks.order_book import OrderBook
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.predecessors import Predecessors
    from airflow_ephemeral_ec2.hooks.queue_ledger import QueueLedger
    from airflow_ephemeral_ec2.model.queue import QueueEntry

log = logging.getLogger(__name__)
CHECKS_PER_ROUND = 200
ROUNDS = 5
"""So many entries are looked up in one pass, so often; who comes after them waits for the next."""


class Admitting:
    """The admissions of one controller."""

    def __init__(
        self,
        store: JobStore,
        ledger: QueueLedger,
        attempts: OpenAttempts,
        order: OrderBook,
        predecessors: Predecessors,
        in_parallel: Parallel,
    ) -> None:
        self._predecessors, self._in_parallel = predecessors, in_parallel
        self._store, self._ledger, self._open, self._order = store, ledger, attempts, order
        self._orders: dict[str, QueueOrder | None] = {}
        self._flaps: dict[str, float] = {}
        self._were_open: dict[str, DatedKey] = {}
        self._damaged: dict[str, QueueEntry | None] = {}
        """Who cannot be read any more -> what it was, where that is still known."""
        self._adoptions = 0
        self._promoted: Mapping[str, int] = {}

    def rank_of(self, name: str) -> Rank:
        """Return the rank of an open attempt as of the last decision: the smaller one comes first."""
        entry, sequence = self._open.memories[name].entry, self._ledger.entries[name].sequence
        return rank(entry, sequence, self._promoted.get(name))

    def admit(
        self,
        order_keys: AbstractSet[str],
        unknown_places: Mapping[tuple[str, str], str],
    ) -> bool:
        """
        Admit whom there is room for, and tell the others why they wait; False: the lease is lost.

        :param order_keys: what people have ordered, as the listing of the queue shows it
        :param unknown_places: connection and region of which nobody knows what is out -> why
        :raises AwsError: the bucket cannot be read; nobody is admitted
        """
        now = self._store.clock.now()
        entries = [memory.entry for memory in self._open.memories.values()]
        self._read_orders(order_keys)
        self._tell_flaps()
        blocked = {
            entry.name: unknown_places[entry.place]
            for entry in entries
            if entry.place in unknown_places
        }
        admission = self._decide(entries, blocked, now)
        for name in admission.waiting:
            if self._ledger.entries[name].stage is Stage.ADMITTED:
                # Somebody more important has come before EC2 was asked.
                self._ledger.set(name, **recall(self._ledger.entries[name]).model_dump())
        for name in admission.admitted:
            if self._ledger.entries[name].stage is Stage.ADMITTED:
                continue
            memory = self._open.memories[name]
            self._ledger.set(
                name,
                stage=Stage.ADMITTED,
                admitted_at=now,
                vcpus=memory.entry.vcpus,
                pool=name_pool(memory.entry, self._ledger.state.accounts),
            )
            # Nobody can have asked for its machine before this moment, unless that was forgotten.
            may_have_asked = self._ledger.entries[name].may_have_asked
            memory.progress = Progress(may_have_asked=may_have_asked)
            if memory.entry.order_override:
                why = memory.entry.order_override
                memory.tell(f"does not wait for what it depends on: {why}")
        for name, wait in admission.waiting.items():
            self._open.memories[name].tell_place(wait, now)
        self._ledger.note_words(self._open.words())
        return self._ledger.save()

    def _decide(self, entries: list[QueueEntry], blocked: dict[str, str], now: float) -> Admission:
        """Decide, look up what the decision rests on, and decide again until nothing is missing."""
        self._forget_what_ended(entries)
        self._order.keep(entry.name for entry in entries)
        orders = [order for order in self._orders.values() if order is not None]
        damaged = self._read_damaged()
        unended = self._predecessors.find_obstacles(self._waiting(entries))
        obstacles = self._order.known_obstacles(entries, now) | blocked | unended
        queue, limits = form_queue(entries, self._ledger.state, orders, obstacles)
        self._promoted = queue.promoted
        states = {name: recall(state) for name, state in queue.states.items()}
        queue = replace(queue, states=states, damaged=damaged)
        rounds_left = ROUNDS
        while True:
            admission = admit(queue, limits, now)
            unchecked = self._unchecked(admission)
            if not unchecked:
                return admission
            if not rounds_left:
                return _before(admission, unchecked, queue.pools)
            rounds_left -= 1
            missing = self._look_up(unchecked[:CHECKS_PER_ROUND], now)
            queue = replace(queue, blocked={**queue.blocked, **missing})

    def _forget_what_ended(self, entries: list[QueueEntry]) -> None:
        """Read again what others have ended: another controller, or whoever ends the damaged."""
        if self._adoptions != self._ledger.adoptions:
            self._adoptions = self._ledger.adoptions
            self._order.forget_all()
        known = {entry.name: DatedKey.of(entry) for entry in entries}
        for name in self._were_open.keys() - known.keys():
            if name in self._open.damaged:
                known[name] = self._were_open[name]
            else:
                self._order.forget(self._were_open[name])
        self._were_open = known

    def _read_damaged(self) -> list[QueueEntry]:
        """Read what those were who cannot be read any more: their machines may be at work."""
        gone = self._damaged.keys() - self._open.damaged.keys()
        for entry in filter(None, (self._damaged.pop(name) for name in gone)):
            self._order.forget(DatedKey.of(entry))
        for name in self._open.damaged.keys() - self._damaged.keys():
            self._damaged[name] = self._open.read_any_entry(name)
        return [entry for entry in self._damaged.values() if entry is not None]

    def _unchecked(self, admission: Admission) -> list[str]:
        """Name those on whom the decision rests and of whom it is not known what they wait for."""
        return [
            name
            for name in (*admission.admitted, *admission.heads, *admission.ahead)
            if self._order.needs_check(self._open.memories[name].entry)
        ]

    def _look_up(self, names: list[str], now: float) -> dict[str, str]:
        entries = [self._open.memories[name].entry for name in names]
        missing, stale = self._order.check(entries, now)
        for name, keys in stale.items():
            for key in keys:
                self._open.memories[name].tell(
                    f"{key} is stale: what it depends on has run again after its success"
                )
        return missing

    def _waiting(self, entries: list[QueueEntry]) -> list[QueueEntry]:
        states = self._ledger.entries
        return [entry for entry in entries if states[entry.name].stage is Stage.WAITING]

    # -- what people order, and what tables say ------------------------------------------------

    def _read_orders(self, keys: Collection[str]) -> None:
        for key in set(self._orders) - set(keys):
            self._forget_order(key)
        # One that was gone when it was read may have been given again under the same name.
        new = sorted(key for key in keys if self._orders.get(key) is None)
        for key, order in zip(new, self._in_parallel(self._store.read_order, new), strict=True):
            self._orders[key] = order
            for memory in self._open.memories.values():
                if order is not None and order.target.matches(memory.entry):
                    memory.tell(order.sentence)

    def _forget_order(self, key: str) -> None:
        order = self._orders.pop(key)
        if order is not None and order.action is OrderAction.HOLD:
            for memory in self._open.memories.values():
                if order.target.matches(memory.entry):
                    memory.tell("released")

    def end_promotions(self, entry: QueueEntry) -> None:
        """Take a promotion back whose job has ended."""
        for key, order in list(self._orders.items()):
            if order is None or order.action is not OrderAction.PROMOTE:
                continue
            if order.target.business_date and order.target.matches(entry):
                self._store.withdraw_order(key)

    def _tell_flaps(self) -> None:
        """Report once that two copies of a table are in use."""
        for table, found in self._ledger.state.tables.items():
            if found.flapped_at is None or self._flaps.get(table) == found.flapped_at:
                continue
            self._flaps[table] = found.flapped_at
            log.warning(
                "table %s: version %.12s came again after version %.12s; two copies are in use. "
                "The limits of the newer stay in force.",
                table,
                found.flapped_with,
                found.version,
            )


def _before(admission: Admission, unchecked: list[str], pools: Mapping[str, str]) -> Admission:
    """Keep of each pool's admissions those before the first of whom it is not known."""
    doubtful, stopped, admitted = set(unchecked), set(), []
    for name in admission.admitted:
        if name in doubtful:
            stopped.add(pools[name])
        elif pools[name] not in stopped:
            admitted.append(name)
    return Admission(tuple(admitted), admission.waiting, admission.heads)
