"""What the bucket has recorded about the jobs that others wait for, read once and remembered."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.order import (
    DatedKey,
    OpenJobs,
    Recorded,
    Staleness,
    dependencies_of,
    find_open_obstacle,
    find_recorded_obstacle,
    find_rewritten_inputs,
    find_stale_inputs,
    has_any_success,
    name_jobs,
    sum_up,
)
from airflow_ephemeral_ec2.model.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.model.queue import QueueEntry

log = logging.getLogger(__name__)
RECHECK_SECONDS = 600.0
"""What is missing is looked for again this often; what this controller concludes counts at once."""


class OrderBook:
    """The order inside a payer, for one controller."""

    def __init__(self, store: JobStore, in_parallel: Parallel) -> None:
        self._store, self._in_parallel = store, in_parallel
        self._lock = threading.Lock()
        """Several attempts end at the same time; to forget puts a new dict in the place of the old."""
        self._recorded: dict[DatedKey, tuple[float, Recorded]] = {}
        self._cleared: dict[str, frozenset[DatedKey]] = {}
        """Entry -> what was read before it was found to have all that it depends on."""
        self._obstacles: dict[str, tuple[float, str, frozenset[DatedKey]]] = {}

    def forget(self, key: DatedKey) -> None:
        """Something of this job and date has ended: read it again when it matters."""
        # With in_order_by_date it may have become the date before another one.
        changed = {key, _any_date_of(key)}
        with self._lock:
            self._recorded.pop(key, None)
            self._cleared = {n: keys for n, keys in self._cleared.items() if not keys & changed}
            self._obstacles = {n: f for n, f in self._obstacles.items() if not f[2] & changed}

    def forget_all(self) -> None:
        """Others have acted meanwhile: read everything again when it matters."""
        self._recorded, self._cleared, self._obstacles = {}, {}, {}

    def keep(self, names: Iterable[str]) -> None:
        """Forget all entries but these."""
        kept = set(names)
        self._cleared = {n: keys for n, keys in self._cleared.items() if n in kept}
        self._obstacles = {n: found for n, found in self._obstacles.items() if n in kept}
        if not kept:
            self._recorded.clear()

    def known_obstacles(self, entries: Iterable[QueueEntry], now: float) -> dict[str, str]:
        """Say what entries wait for, as far as it is known without reading anything."""
        entries = list(entries)
        bound = [e for e in entries if e.depends_on or e.in_order_by_date]
        if not bound:
            return {}
        open_jobs, found = OpenJobs(entries), {}
        for entry in bound:
            why = find_open_obstacle(entry, open_jobs)
            if why is None and entry.name in self._obstacles:
                at, text, _ = self._obstacles[entry.name]
                why = text if now - at < RECHECK_SECONDS else None
            if why is not None:
                found[entry.name] = why
        return found

    def needs_check(self, entry: QueueEntry) -> bool:
        """Whether it is not known yet that an entry has all that it depends on."""
        if entry.order_override or not (entry.depends_on or entry.in_order_by_date):
            return False
        return entry.name not in self._cleared

    def check(
        self, entries: Iterable[QueueEntry], now: float
    ) -> tuple[dict[str, str], dict[str, tuple[DatedKey, ...]]]:
        """
        Read what entries depend on.

        Returns what is missing, by the name of the entry, and the stale inputs of those that
        miss nothing.

        :raises AwsError: the bucket cannot be read now; nothing is known then
        """
        entries = list(entries)
        by_date = [entry for entry in entries if entry.in_order_by_date]
        dates = dict(zip((e.name for e in by_date),
                         self._in_parallel(self._find_earlier, by_date), strict=True))  # fmt: skip
        keys = {entry.name: self._keys_of(entry, dates.get(entry.name)) for entry in entries}
        recorded = self._read_recorded({key for found in keys.values() for key in found}, now)
        missing, stale = {}, {}
        for entry in entries:
            name, rests_on = entry.name, keys[entry.name]
            if entry.in_order_by_date:
                rests_on |= {_any_date_of(DatedKey.of(entry))}
            why = find_recorded_obstacle(entry, recorded, dates.get(name))
            if why is not None:
                missing[name] = why
                self._obstacles[name] = (now, why, rests_on)
                continue
            self._obstacles.pop(name, None)
            self._cleared[name] = rests_on
            if old := find_stale_inputs(entry, recorded):
                stale[name] = old
        return missing, stale

    def read(self, key: DatedKey) -> Recorded:
        """Read how a job stands for a date: two listings."""
        asked = self._store.find_by_date(key.payer, key.job, key.business_date)
        return sum_up(asked, self._store.read_history(key))

    def mark_stale(
        self, entry: QueueEntry, reads: Iterable[str], launched_at: float | None
    ) -> Staleness:
        """
        Mark what the success of ``entry`` shows to be stale.

        That is what was made of its older output, and itself, if its input was written again
        while it ran.

        :param reads: jobs that its row depends on, also where it need not wait for them
        :param launched_at: when its machine was launched (bucket's clock); None: never
        :raises AwsError: the bucket cannot be asked now; marking again later is harmless
        """
        keys, inputs = name_jobs(entry, entry.dependents), name_jobs(entry, reads)
        marked = list(zip(keys, self._in_parallel(lambda key: self._mark(key, entry.title), keys),
                          strict=True))  # fmt: skip
        for key in keys:
            self.forget(key)
        old = () if launched_at is None else self._find_rewritten(inputs, launched_at)
        if old:
            log.warning("%s is stale: %s", entry.title, ", ".join(map(str, old)))
            key = DatedKey.of(entry)
            self._store.mark_stale(key, entry.name, by=", ".join(map(str, old)))
            self.forget(key)
        return Staleness(tuple(key for key, is_marked in marked if is_marked), old)

    def _mark(self, key: DatedKey, by: str) -> bool:
        """Mark all successes of a job and date; also the parts of an array that is not done."""
        history = self._store.read_history(key)
        for attempt in history.finished:
            if attempt.outcome == Outcome.SUCCEEDED and attempt.name not in history.stale:
                self._store.mark_stale(key, attempt.name, by)
        return has_any_success(history)

    def _find_rewritten(
        self, keys: tuple[DatedKey, ...], launched_at: float
    ) -> tuple[DatedKey, ...]:
        recorded = dict(zip(keys, self._in_parallel(self.read, keys), strict=True))
        times = self._in_parallel(lambda key: self._store.find_success(key, launched_at), keys)
        newest = {key: at for key, at in zip(keys, times, strict=True) if at is not None}
        return find_rewritten_inputs(keys, launched_at, recorded, newest)

    def _read_recorded(self, keys: Iterable[DatedKey], now: float) -> Mapping[DatedKey, Recorded]:
        known = {
            key: found
            for key, (at, found) in self._recorded.items()
            if found.has_succeeded or now - at < RECHECK_SECONDS
        }
        unread = sorted(set(keys) - set(known))
        fresh = dict(zip(unread, self._in_parallel(self.read, unread), strict=True))
        self._recorded.update({key: (now, found) for key, found in fresh.items()})
        return known | fresh

    def _find_earlier(self, entry: QueueEntry) -> str | None:
        dates = self._store.list_dates(entry.payer, entry.job)
        return max((date for date in dates if date < entry.business_date), default=None)

    @staticmethod
    def _keys_of(entry: QueueEntry, earlier: str | None) -> frozenset[DatedKey]:
        keys = set(dependencies_of(entry))
        if earlier is not None:
            keys.add(DatedKey(entry.payer, entry.job, earlier))
        return frozenset(keys)


def _any_date_of(key: DatedKey) -> DatedKey:
    """Name a job of a payer whatever the date: which one is the date before may change."""
    return replace(key, business_date="")
