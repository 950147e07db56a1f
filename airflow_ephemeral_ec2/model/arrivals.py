"""Entries that are new in the queue: their place in the order, and the limits that they bring."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from airflow_ephemeral_ec2.model.queue import (
    EntryState,
    Place,
    QueueEntry,
    QueueState,
    TableInForce,
)
from airflow_ephemeral_ec2.model.spec import Limits

ROLLBACK_SECONDS = 900.0
"""An older version of a table counts as new again when the newer was not seen for so long."""
OLDER_VERSIONS = 20


def merge_arrivals(
    state: QueueState, entries: Sequence[QueueEntry], listed: AbstractSet[str] = frozenset()
) -> QueueState:
    """
    Give each entry that is new a place in the order of arrival, and forget those that are gone.

    :param listed: names in the queue, those that cannot be read included: their machines count
    """
    names = {entry.name for entry in entries} | listed
    arrivals = [entry for entry in entries if entry.name not in state.entries]
    if not arrivals and names.issuperset(state.entries):
        return state
    known = {name: found for name, found in state.entries.items() if name in names}
    sequence, tables = state.next_sequence, dict(state.tables)
    accounts = dict(state.accounts)
    for entry in sorted(arrivals, key=lambda e: (e.requested_at, e.name)):
        known[entry.name] = EntryState(sequence=sequence)
        sequence += 1
        tables[entry.table] = note_version(tables.get(entry.table), entry)
        if entry.account:
            accounts[entry.aws_conn_id] = entry.account
    return state.model_copy(
        update={
            "entries": known,
            "next_sequence": sequence,
            "tables": tables,
            "accounts": accounts,
            "places": _find_places(state, entries, listed),
        }
    )


def _find_places(
    state: QueueState, entries: Sequence[QueueEntry], listed: AbstractSet[str]
) -> tuple[Place, ...]:
    """Name the places of all that is open: of what cannot be read, one of those known before."""
    places = {entry.place for entry in entries if entry.region}
    if not listed <= {entry.name for entry in entries}:
        places.update(state.places)
    return tuple(sorted(places))


def note_version(found: TableInForce | None, entry: QueueEntry) -> TableInForce:
    """
    Note the table version that an entry brings: the one that was seen first last is in force.

    Workers that read two copies of a table bring its versions in turn. The newer stays in force,
    and that they flap is noted, until a newer one comes; a table that was put back on purpose is in
    force after a while.
    """
    version, now = entry.table_version, entry.requested_at
    if found is None:
        return TableInForce(version=version, limits=entry.limits, seen_at=now)
    if version == found.version:
        return found.model_copy(update={"seen_at": max(now, found.seen_at)})
    came_before = version in found.older
    if came_before and now - found.seen_at <= ROLLBACK_SECONDS:
        older = found.older | {version: now}
        flap = {"older": older, "flapped_at": now, "flapped_with": version}
        return found.model_copy(update=flap)
    older = {v: at for v, at in found.older.items() if v != version}
    older[found.version] = found.seen_at
    newest = sorted(older.items(), key=lambda pair: pair[1])[-OLDER_VERSIONS:]
    return TableInForce(
        version=version,
        limits=entry.limits,
        seen_at=now,
        older=dict(newest),
    )


def name_pool(entry: QueueEntry, accounts: Mapping[str, str]) -> str:
    """
    Name what an entry's limits are counted in: region and account.

    Where no entry of the connection could name the account, the connection stands for it.
    """
    account = entry.account or accounts.get(entry.aws_conn_id) or entry.aws_conn_id
    return f"{entry.region}/{account}"


def rename_pool(pool: str, accounts: Mapping[str, str]) -> str:
    """Name a pool as it is called now: its account may have become known since."""
    region, _, account = pool.partition("/")
    return f"{region}/{accounts.get(account, account)}" if pool else pool


def limits_in_force(state: QueueState, entries: Iterable[QueueEntry]) -> dict[str, Limits]:
    """
    Find the limits of each pool: those of the newest versions of the tables that have entries.

    Where two tables limit the same, the smaller number holds: no limit is ever exceeded.
    """
    tables: dict[str, set[str]] = {}
    for entry in entries:
        tables.setdefault(name_pool(entry, state.accounts), set()).add(entry.table)
    return {
        pool: _tightest([state.tables[n].limits for n in sorted(names) if n in state.tables])
        for pool, names in tables.items()
    }


def _tightest(limits: Sequence[Limits]) -> Limits:
    if len(limits) == 1:
        return limits[0]
    return Limits(
        vcpus=_least(one.vcpus for one in limits),
        on_demand=_least(one.on_demand for one in limits),
        spot=_least(one.spot for one in limits),
        payers=_least_of([one.payers for one in limits]),
        jobs=_least_of([one.jobs for one in limits]),
        fill_gaps=all(one.fill_gaps for one in limits),
    )


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _least_of(maps: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = {name for one in maps for name in one}
    return {name: min(one[name] for one in maps if name in one) for name in names}
