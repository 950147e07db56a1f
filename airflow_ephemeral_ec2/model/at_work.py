"""Runs of one payer and business date do not get into each other's way."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_ephemeral_ec2.model.queue import QueueEntry


@dataclass
class _Work:
    """One job, as one run asks for it."""

    run_key: str
    dag_id: str
    is_out: bool = False
    """Some part of it has a machine, or may get one any moment."""
    parts: dict[int, set[int]] = field(default_factory=dict)
    """Array size -> parts that are out, are admitted now, or wait for room or for another run."""

    def add(self, entry: QueueEntry, *, is_out: bool) -> None:
        self.is_out = self.is_out or is_out
        self.parts.setdefault(entry.array_size, set()).add(entry.array_index)

    def has_part_of(self, entry: QueueEntry) -> bool:
        """Whether an entry would do a part of it again; of a resized array it may."""
        return len(self.parts) > 1 or entry.array_index in self.parts.get(
            entry.array_size, (entry.array_index,)
        )

    def __str__(self) -> str:
        return f"another run of {self.dag_id}" if self.dag_id else "another run"


class AtWork:
    """
    Who is out or comes first, by payer and business date.

    While one run does a job, no other run does the same one (or the same part of an array), writes
    what it reads, or reads what it writes. Who stands in line counts like who is out for those
    behind: else these would take its turn. What one run asks for twice is its author's business;
    rows with ``cross_run_order: false`` are not looked at.
    """

    def __init__(self, out: Iterable[QueueEntry]) -> None:
        self._alone: dict[tuple[str, str], QueueEntry] = {}
        """Payer and date -> the first entry of it; mostly there is no other one."""
        self._days: dict[tuple[str, str], dict[str, list[_Work]]] = {}
        """Payer and date, where there are more -> job -> what each run does of it."""
        out = list(out)
        self._out = {entry.name for entry in out}
        for entry in out:
            self.add(entry)

    def add(self, entry: QueueEntry) -> None:
        """Count who is out or admitted, or waits for room or for another run."""
        if entry.run_key and entry.cross_run_order:
            first = self._alone.setdefault(entry.day, entry)
            if first is not entry:
                self._add_to(self._day_of(first), entry)

    def _day_of(self, first: QueueEntry) -> dict[str, list[_Work]]:
        day = self._days.get(first.day)
        if day is None:
            day = self._days[first.day] = {}
            self._add_to(day, first)
        return day

    def _add_to(self, day: dict[str, list[_Work]], entry: QueueEntry) -> None:
        works = day.setdefault(entry.job, [])
        work = next((one for one in works if one.run_key == entry.run_key), None)
        if work is None:
            work = _Work(entry.run_key, entry.dag_id)
            works.append(work)
        work.add(entry, is_out=entry.name in self._out)

    def find_obstacle(self, entry: QueueEntry) -> str | None:
        """Say which job of another run an entry must wait for."""
        first, own = self._alone.get(entry.day), entry.run_key
        if first is None or not own or not entry.cross_run_order:
            return None
        if first.run_key == own and entry.day not in self._days:
            return None
        day = self._day_of(first)
        same = [
            work
            for work in day.get(entry.job, ())
            if work.run_key != own and work.has_part_of(entry)
        ]
        if same:
            work = _first(same)
            does = "does the same now" if work.is_out else "asks for the same and comes first"
            return f"waits for {work}, which {does}"
        reads = () if entry.order_override else entry.depends_on
        return _find_neighbour(day, own, reads, "writes what this one reads") or _find_neighbour(
            day, own, entry.dependents, "reads, directly or not, what this one writes"
        )

    def has_several_runs(self, entry: QueueEntry) -> bool:
        """Whether an entry may keep another run waiting, or the other way round."""
        day = self._days.get(entry.day, {})
        return len({work.run_key for works in day.values() for work in works}) > 1


def _find_neighbour(
    day: dict[str, list[_Work]], own: str, jobs: Iterable[str], does: str
) -> str | None:
    for job in jobs:
        others = [work for work in day.get(job, ()) if work.run_key != own]
        if others:
            return f"waits for {job} of {_first(others)}, which {does}"
    return None


def _first(works: list[_Work]) -> _Work:
    """Choose whom to name: the same one, whatever was added first."""
    return min(works, key=lambda work: (not work.is_out, work.run_key))
