"""The queue as people see it: what the controller would decide now, as rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from airflow_ephemeral_ec2.model.admission import (  # fmt: skip
    Admission,
    Because,
    Queue,
    Wait,
    admit,
    rank,
)
from airflow_ephemeral_ec2.model.limit_names import TOTAL, name_limits
from airflow_ephemeral_ec2.model.queue import (
    EntryState,
    QueueEntry,
    QueueState,
    Stage,
    describe_launch,
    recall,
)
from airflow_ephemeral_ec2.model.queue_forming import form_queue
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, QueueOrder
from airflow_ephemeral_ec2.model.spec import Limits


@dataclass(frozen=True)
class QueueSnapshot:
    """All that was read about the queue at one moment."""

    entries: Sequence[QueueEntry]
    state: QueueState
    """Has a state for each entry."""
    orders: Sequence[QueueOrder]
    obstacles: Mapping[str, str]
    """Entry name -> what of its own it waits for, holds not included."""
    now: float
    """Bucket's clock."""
    unreadable: tuple[str, ...] = ()
    """Names of entries that are not ours to read."""
    lost: str = ""
    """Why the queue state must be rebuilt; empty: it need not."""


@dataclass(frozen=True)
class QueueRow:
    """One waiting entry, or one that is admitted and not asked for yet."""

    entry: QueueEntry
    place: int | None
    """From 1; None: it does not stand in line."""
    is_held: bool
    seconds: float
    """For how long it has waited."""
    why: str
    wait: Wait | None
    """None: it would be admitted now."""


@dataclass(frozen=True)
class PoolTable:
    """The waiting entries of one account and region, and what of its limits is taken."""

    pool: str
    limits: Limits
    running: int
    """vCPUs of machines that run, launching ones included."""
    launching: int
    terminating: int
    taken: Mapping[str, int]
    """Limit -> vCPUs taken, as the decision counts them."""
    rows: tuple[QueueRow, ...]

    @property
    def free(self) -> int | None:
        """Return the vCPUs that the overall limit has left; None: there is no limit."""
        if self.limits.vcpus is None:
            return None
        return max(self.limits.vcpus - self.taken.get(TOTAL, 0), 0)

    @property
    def own_limits(self) -> dict[str, tuple[int, int]]:
        """Return limit -> (taken, limit) of all but the overall one."""
        named = name_limits(self.limits)
        return {n: (self.taken.get(n, 0), most) for n, most in named.items() if n != TOTAL}


@dataclass(frozen=True)
class QueueView:
    """What the controller would decide now."""

    snapshot: QueueSnapshot
    queue: Queue
    admission: Admission
    pools: tuple[PoolTable, ...]
    warnings: tuple[str, ...]


def view_queue(snapshot: QueueSnapshot) -> QueueView:
    """Decide as a controller does, and put the decision into rows, one table per pool."""
    queue, limits = form_queue(
        snapshot.entries, snapshot.state, snapshot.orders, snapshot.obstacles
    )
    taken = admit(queue, limits, snapshot.now).taken
    # As a controller decides: whom EC2 has surely not been asked for waits again.
    recalled = {name: recall(state) for name, state in queue.states.items()}
    admission = admit(replace(queue, states=recalled), limits, snapshot.now)
    admission = replace(admission, taken=taken)
    rows = _rows(snapshot, queue, admission)
    names = sorted({*limits, *rows, *(pool for pool, _ in _machines(snapshot, queue))})
    pools = tuple(_table(snapshot, queue, admission, limits, name, rows) for name in names)
    return QueueView(snapshot, queue, admission, pools, tuple(_warnings(snapshot)))


def find_held(snapshot: QueueSnapshot, entry: QueueEntry) -> QueueOrder | None:
    """Find the hold that an entry is under; the last one is the one that counts."""
    holds = [o for o in snapshot.orders if o.action is OrderAction.HOLD and o.target.matches(entry)]
    return holds[-1] if holds else None


def has_controller(snapshot: QueueSnapshot) -> bool:
    """Say whether somebody acts on the queue now."""
    lease = snapshot.state.lease
    return lease is not None and lease.expires_at >= snapshot.now


def describe_order(order: QueueOrder, now: float) -> str:
    """``by ops "bad file", 01:12Z``: the date only when it is another day."""
    moment, today = datetime.fromtimestamp(order.at, UTC), datetime.fromtimestamp(now, UTC)
    shape = "%H:%MZ" if moment.date() == today.date() else "%Y-%m-%d %H:%MZ"
    return f'by {order.by} "{order.reason}", {moment:{shape}}'


def rank_of(view: QueueView, name: str) -> tuple[object, ...]:
    """Return the rank of a waiting entry: the smaller one comes first."""
    entry = next(e for e in view.snapshot.entries if e.name == name)
    sequence = view.queue.states[name].sequence
    return rank(entry, sequence, view.queue.promoted.get(name))


_BECAUSE = (
    "promoted",
    "promoted earlier",
    "no backfill",
    "priority {0.priority}",
    "business date {0.business_date}",
    "arrived earlier",
)
"""What each part of a rank means, for who is ahead."""


def explain_ahead(view: QueueView, ahead: QueueEntry, entry: QueueEntry) -> str:
    """Say why one waiting entry comes before another."""
    pairs = zip(rank_of(view, ahead.name), rank_of(view, entry.name), strict=True)
    for words, (first, second) in zip(_BECAUSE, pairs, strict=True):
        if first != second:
            return words.format(ahead)
    return _BECAUSE[-1]


def _rows(
    snapshot: QueueSnapshot, queue: Queue, admission: Admission
) -> dict[str, tuple[QueueRow, ...]]:
    """Return pool -> rows: those in line in their order, then those that are not."""
    entries = {entry.name: entry for entry in snapshot.entries}
    places: dict[str, int] = {}
    before: dict[tuple[str, str], str] = {}
    """Pool and limit -> who stands last in its line so far."""
    count: dict[str, int] = defaultdict(int)
    rows: dict[str, list[QueueRow]] = defaultdict(list)
    for name in _in_line(snapshot, queue, admission):
        entry, pool = entries[name], queue.pools[name]
        wait = admission.waiting.get(name)
        if wait is None or wait.because in (Because.ROOM, Because.BEHIND):
            count[pool] += 1
            places[name] = count[pool]
        last = before.get((pool, wait.resource)) if wait else None
        why = _why(snapshot, entry, wait, places.get(last or ""))
        if wait is not None and wait.because in (Because.ROOM, Because.BEHIND):
            before[pool, wait.resource] = name
        rows[pool].append(
            QueueRow(
                entry=entry,
                place=places.get(name),
                is_held=find_held(snapshot, entry) is not None,
                seconds=max(snapshot.now - entry.requested_at, 0.0),
                why=why,
                wait=wait,
            )
        )
    return {
        pool: tuple(sorted(found, key=lambda row: row.place is None))
        for pool, found in rows.items()
    }


def _in_line(snapshot: QueueSnapshot, queue: Queue, admission: Admission) -> list[str]:
    entries = {entry.name: entry for entry in snapshot.entries}
    names = [*admission.admitted, *admission.waiting]
    return sorted(
        names,
        key=lambda n: rank(entries[n], queue.states[n].sequence, queue.promoted.get(n)),
    )


def _why(snapshot: QueueSnapshot, entry: QueueEntry, wait: Wait | None, last: int | None) -> str:
    if wait is None:
        if snapshot.lost:
            return "waits until EC2 has been asked what is out"
        state = snapshot.state.entries[entry.name]
        if state.stage is Stage.ADMITTED:
            return f"admitted, {describe_launch(state)}"
        return "fits; launched at the controller's next pass"
    text = wait.reason
    held = find_held(snapshot, entry)
    if wait.because is Because.BLOCKED and held is not None:
        return describe_order(held, snapshot.now)
    if wait.because is Because.ROOM:
        text = f"needs {entry.vcpus}, {wait.free} {_label(wait.resource)}free; reserved"
    elif wait.because is Because.BEHIND and last is not None:
        own = "" if wait.resource == TOTAL else f" for {wait.resource}"
        text = f"behind #{last}{own}"
    return f"backfill, {text}" if entry.is_backfill and wait.behind else text


def _label(resource: str) -> str:
    return "" if resource == TOTAL else f"{resource} "


def _machines(snapshot: QueueSnapshot, queue: Queue) -> list[tuple[str, EntryState]]:
    return [
        (queue.pools.get(name) or state.pool, state)
        for name, state in snapshot.state.entries.items()
        if state.stage is not Stage.WAITING
    ]


def _table(
    snapshot: QueueSnapshot,
    queue: Queue,
    admission: Admission,
    limits: Mapping[str, Limits],
    name: str,
    rows: Mapping[str, tuple[QueueRow, ...]],
) -> PoolTable:
    out = [state for pool, state in _machines(snapshot, queue) if pool == name]
    terminating = sum(state.vcpus for state in out if state.is_ending)
    return PoolTable(
        pool=name,
        limits=limits.get(name, Limits()),
        running=sum(state.vcpus for state in out) - terminating,
        launching=sum(state.vcpus for state in out if state.stage is Stage.ADMITTED),
        terminating=terminating,
        taken=admission.taken.get(name, {}),
        rows=rows.get(name, ()),
    )


def _warnings(snapshot: QueueSnapshot) -> list[str]:
    state, found = snapshot.state, []
    if snapshot.lost:
        found.append(
            f"{snapshot.lost}; the next controller rebuilds it and asks EC2 what is out. "
            "Nobody is admitted before; the numbers here do not know what runs."
        )
    waits = any(known.stage is Stage.WAITING for known in state.entries.values())
    if waits and not has_controller(snapshot):
        found.append("no controller acts now: nobody is admitted until a triggerer runs")
    used = {entry.table for entry in snapshot.entries}
    for table, known in sorted(state.tables.items()):
        if known.flapped_at is not None and table in used:
            ago = max(snapshot.now - known.flapped_at, 0.0)
            found.append(
                f"{table or 'a table'}: two copies are in use: version {known.flapped_with[:12]} "
                f"came again after {known.version[:12]}, {ago / 60:.0f}m ago; "
                "the limits of the newer are in force"
            )
    if snapshot.unreadable:
        names = ", ".join(name[:12] for name in snapshot.unreadable[:5])
        found.append(
            f"{len(snapshot.unreadable)} entries cannot be read and are not shown: {names}"
        )
    return found
