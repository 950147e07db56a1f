"""The admission queue: who may launch now, and what everybody else waits for."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from airflow_ephemeral_ec2.model.at_work import AtWork
from airflow_ephemeral_ec2.model.limit_names import TOTAL, name_limits, of_job, of_market, of_payer
from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry, Stage
from airflow_ephemeral_ec2.model.spec import Limits

LAUNCH_SLACK_SECONDS = 60.0
"""From admission to launch, at EC2's pace; a gap is only filled by what ends before, slack included."""


class Because(StrEnum):
    """What an entry waits for."""

    BLOCKED = "blocked"
    """Something of its own: an order, a hold, its predecessor."""
    NEVER = "never"
    """It is larger than a limit."""
    ROOM = "room"
    """It is the first that a limit has no room for; the room is reserved."""
    BEHIND = "behind"
    """A more important one waits for room."""


@dataclass(frozen=True)
class Wait:
    """Why an entry waits, and behind whom."""

    because: Because
    reason: str
    """A sentence for people."""
    behind: str | None = None
    """Name of the entry that it stands behind."""
    resource: str = ""
    """The limit that has no room for it, like ``spot vCPU``; empty: no limit is the reason."""
    free: int = 0
    """vCPUs that this limit has left."""
    reserved_at: float | None = None
    """When the room is there at the latest (bucket's clock), if it is the first and that is known."""

    @property
    def shortage(self) -> str:
        """``2 vCPU wanted, 0 of 96 free``: what is missing, without who is ahead."""
        return self.reason.partition("; ")[0]

    @property
    def key(self) -> tuple[str, str]:
        """What has to change before it is worth another line in a log."""
        text = self.reason if self.because in (Because.BLOCKED, Because.NEVER) else ""
        return self.because, self.behind or text


@dataclass(frozen=True)
class Queue:
    """All that a decision needs to know."""

    entries: Sequence[QueueEntry]
    states: Mapping[str, EntryState]
    pools: Mapping[str, str]
    """Entry name -> account and region that it counts against."""
    blocked: Mapping[str, str] = field(default_factory=dict)
    """Entry name -> what of its own it waits for; it holds back nobody."""
    damaged: Sequence[QueueEntry] = ()
    """Those that cannot be read any more, and may have a machine."""
    promoted: Mapping[str, int] = field(default_factory=dict)
    """Entry name -> its place before everybody else."""


@dataclass(frozen=True)
class Admission:
    """What one look at the queue decides."""

    admitted: tuple[str, ...]
    """Names of entries that may launch now, in order."""
    waiting: Mapping[str, Wait]
    """In the order of admission."""
    heads: tuple[str, ...] = ()
    """Those among the waiting that others stand behind."""
    ahead: tuple[str, ...] = ()
    """Others among the waiting that may keep another run of their payer and date waiting."""
    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Pool -> limit -> vCPUs that were out before this decision."""


Rank = tuple[int, int, bool, int, str, int]


def rank(entry: QueueEntry, sequence: int, promoted: int | None = None) -> Rank:
    """
    Say who comes first: the smaller one.

    Promoted by hand, then no backfill (unless its row says otherwise), then priority, then the
    earlier business date, then arrival.
    """
    is_last = promoted is None
    return (
        int(is_last),
        promoted or 0,
        entry.is_backfill,
        -entry.priority,
        entry.business_date,
        sequence,
    )


def admit(queue: Queue, limits: Mapping[str, Limits], now: float) -> Admission:
    """
    Decide who may launch now; ``docs/admission.md`` has the laws, each with its test.

    :param limits: by pool
    :param now: bucket's clock, seconds since 1970
    """
    names = {entry.name: entry for entry in queue.entries}
    rooms: dict[str, _Pool] = defaultdict(lambda: _Pool(Limits(), now))
    rooms.update({pool: _Pool(found, now) for pool, found in limits.items()})
    for name, state in queue.states.items():
        if state.stage is not Stage.WAITING:
            # The pool as it is called now: its account may have become known after the admission.
            pool = queue.pools.get(name) or state.pool
            rooms[pool].occupy(names.get(name), state)
    taken = {pool: room.taken for pool, room in rooms.items()}
    at_work = AtWork(
        [e for n, e in names.items() if queue.states[n].stage is not Stage.WAITING]
        + list(queue.damaged)
    )
    admitted: list[str] = []
    waiting: dict[str, Wait] = {}
    for entry, name in _in_order(queue):
        wait = _place(queue, entry, name, rooms[queue.pools[name]], at_work)
        if wait is None:
            admitted.append(name)
        else:
            waiting[name] = wait
        if wait is None or (name not in queue.blocked and wait.because is not Because.NEVER):
            at_work.add(entry)
    heads = tuple(name for name, wait in waiting.items() if wait.because is Because.ROOM)
    ahead = tuple(
        name
        for name, wait in waiting.items()
        if wait.because in (Because.BEHIND, Because.BLOCKED)
        and name not in queue.blocked
        and at_work.has_several_runs(names[name])
    )
    return Admission(tuple(admitted), waiting, heads, ahead, taken)


def _place(
    queue: Queue, entry: QueueEntry, name: str, room: "_Pool", at_work: AtWork
) -> Wait | None:
    """Take the room for an entry, or say why it waits."""
    if name in queue.blocked:
        return Wait(Because.BLOCKED, queue.blocked[name])
    needed = room.find_limits(entry, entry.markets)
    if never := room.find_excess(entry, needed):
        return never
    if why := at_work.find_obstacle(entry):
        return Wait(Because.BLOCKED, why)
    return room.place(entry, name, needed)


def _in_order(queue: Queue) -> list[tuple[QueueEntry, str]]:
    waiting = [
        (rank(entry, state.sequence, queue.promoted.get(name)), name, entry)
        for entry in queue.entries
        if (state := queue.states[name := entry.name]).stage is Stage.WAITING
    ]
    waiting.sort(key=lambda item: item[0])
    return [(entry, name) for _, name, entry in waiting]


@dataclass
class _Head:
    """Who waits first for the room of a limit, and until when others must be gone."""

    name: str
    label: str
    until: float
    kept: int = 0
    """vCPUs of those who wait for another limit, and need room in this one too."""


class _Pool:
    """The limits of one account and region, and what of them is taken."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._fill_gaps, self._now = limits.fill_gaps, now
        self._limits = name_limits(limits)
        # Each name is made once: decisions ask for them thousands of times.
        self._payers = {payer: of_payer(payer) for payer in limits.payers}
        self._jobs = {job: of_job(job) for job in limits.jobs}
        markets = {market: of_market(market) for market in ("on-demand", "spot")}
        self._markets = {m: name for m, name in markets.items() if name in self._limits}
        self._taken: dict[str, int] = dict.fromkeys(self._limits, 0)
        self._ends: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._heads: dict[str, _Head] = {}
        self._keepers: dict[str, _Head] = {}

    @property
    def taken(self) -> dict[str, int]:
        return dict(self._taken)

    def occupy(self, entry: QueueEntry | None, state: EntryState) -> None:
        """Count what is out; also what cannot be read, and machines that are shutting down."""
        if entry is None:
            self._take([TOTAL] if TOTAL in self._limits else [], state.vcpus, self._now)
            return
        ends = self._now
        if not state.is_ending:
            began = state.launched_at or state.admitted_at or self._now
            ends = max(began + entry.max_lifetime, self._now)
        markets = (state.market,) if state.market else entry.markets
        self._take(self.find_limits(entry, markets), state.vcpus, ends)

    def find_excess(self, entry: QueueEntry, needed: Sequence[str]) -> Wait | None:
        """Say which of its limits an entry is larger than, if there is one."""
        for resource in needed:
            if entry.vcpus > self._limits[resource]:
                return _never(entry, resource, self._limits[resource])
        return None

    def place(self, entry: QueueEntry, name: str, needed: Sequence[str]) -> Wait | None:
        """Take the room for an entry that no limit is too small for, or say why it waits."""
        vcpus = entry.vcpus
        gone = self._now + entry.max_lifetime + LAUNCH_SLACK_SECONDS
        for resource in needed:
            head = self._heads.get(resource)
            if head is None and resource in self._keepers:
                head = self._find_keeper(resource, vcpus)
            if head is not None and not (self._fill_gaps and gone <= head.until):
                return self._wait(entry, resource, head)
            if self._taken[resource] + vcpus <= self._limits[resource]:
                continue
            if head is not None:
                # It could fill the gap and finds no room: nobody less important fills it then.
                head.until = -math.inf
                return self._wait(entry, resource, head)
            until = self._find_room(resource, self._limits[resource] - vcpus)
            self._heads[resource] = _Head(name, entry.label, until)
            others = [one for one in needed if one not in (resource, TOTAL)]
            self._keep(others, vcpus, self._heads[resource])
            return self._wait(entry, resource, None, until)
        self._take(needed, vcpus, self._now + entry.max_lifetime)
        return None

    def _keep(self, others: Sequence[str], vcpus: int, head: _Head) -> None:
        """
        Keep room in the other own limits of who waits for one of them.

        Else the less important would take the one while it waits for the other, in turns and for
        ever. The overall limit needs no keeping: it is looked at last, and then reserved.
        """
        for resource in others:
            keeper = self._keepers.setdefault(resource, replace(head))
            keeper.kept += vcpus
            keeper.until = min(keeper.until, head.until)

    def _find_keeper(self, resource: str, vcpus: int) -> _Head | None:
        """Find who keeps what would be taken here; from then on it is the head of this limit."""
        keeper = self._keepers[resource]
        if self._taken[resource] + vcpus + keeper.kept <= self._limits[resource]:
            return None
        self._heads[resource] = keeper
        return keeper

    def _take(self, resources: Sequence[str], vcpus: int, ends: float) -> None:
        for resource in resources:
            self._taken[resource] += vcpus
            self._ends[resource].append((ends, vcpus))

    def find_limits(self, entry: QueueEntry, markets: tuple[str, ...]) -> list[str]:
        """Name the limits that an entry counts against: its own first, the overall one last."""
        found = [self._markets[market] for market in markets if market in self._markets]
        if entry.payer in self._payers:
            found.append(self._payers[entry.payer])
        if entry.job in self._jobs:
            found.append(self._jobs[entry.job])
        if TOTAL in self._limits:
            found.append(TOTAL)
        return found

    def _find_room(self, resource: str, most: int) -> float:
        """Find when at most ``most`` is still taken, should everything run as long as it may."""
        taken = self._taken[resource]
        for ends, vcpus in sorted(self._ends[resource]):
            taken -= vcpus
            if taken <= most:
                return ends
        return -math.inf

    def _wait(
        self, entry: QueueEntry, resource: str, head: _Head | None, until: float = -math.inf
    ) -> Wait:
        limit = self._limits[resource]
        free = max(limit - self._taken[resource], 0)
        text = f"{entry.vcpus} vCPU wanted, {free} of {limit}"
        text += " free" if resource == TOTAL else f" {resource} free"
        if head is not None:
            text += f"; behind {head.label}"
            return Wait(Because.BEHIND, text, head.name, resource, free)
        at = until if until > self._now else None
        return Wait(Because.ROOM, f"{text}; first in line", None, resource, free, at)


def _never(entry: QueueEntry, resource: str, limit: int) -> Wait:
    what = "limits.vcpus" if resource == TOTAL else f"the limit of {resource}"
    reason = (
        f"{entry.vcpus} vCPU wanted, {limit} {resource} is the limit; it can never fit: "
        f"raise {what} or choose a smaller type"
    )
    return Wait(Because.NEVER, reason, resource=resource)
