"""SIMULATED: the trace under Airflow's scheduler with a pool in vCPUs. ``--full`` measures real ones.

Follows ``SchedulerJobRunner._executable_task_instances_to_queued`` of Airflow 3.3: candidates
ORDER BY -priority_weight, logical_date, map_index, at most ``max_tis_per_query``; who does not
fit is skipped and left out of the next query, the scan goes on with who comes after; it ends when
somebody was queued or fewer than asked for were found.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.bouncer_engine import BOOT_SECONDS, POLL_SECONDS, SHUTDOWN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.bouncer_trace import TracedJob

FILE = Path(__file__).with_name("bouncer_pool.yaml")
TASK_SECONDS = 2.0
"""From queued to RunInstances, the same for each: the pool is judged, not the workers."""


@dataclass(frozen=True)
class Pool:
    """The pool's configuration; the file says why it is so."""

    slots: int
    max_tis_per_query: int
    scheduler_seconds: float


def read_pool() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


class SimulatedPools:
    """One run of a trace; ``run`` returns arrivals and launches."""

    def __init__(self, trace: Sequence[TracedJob]) -> None:
        told = read_pool()
        self._pool = Pool(told["slots"], told["max_tis_per_query"], told["scheduler_seconds"])
        self._jobs = list(trace)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._scheduled: dict[str, TracedJob] = {}
        self._open = self._pool.slots
        self._left = len(self._jobs)
        self.now = 0.0
        self.arrivals: list[dict[str, Any]] = []
        self.launches: list[dict[str, Any]] = []

    def run(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        for job in self._jobs:
            if not job.depends:
                self._after(job.data_at, lambda job=job: self._schedule(job))
        self._after(0.0, self._loop)
        while self._left:
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self.arrivals, self.launches

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), act))

    def _schedule(self, job: TracedJob) -> None:
        self._scheduled[job.name] = job
        self.arrivals.append(job.arrival(self.now))

    def _loop(self) -> None:
        starved: set[str] = set()
        while self._open > 0:
            most = min(self._pool.max_tis_per_query, self._open)
            found = sorted(
                (job for name, job in self._scheduled.items() if name not in starved),
                key=lambda job: (-job.priority, job.date),
            )[:most]
            queued = [job for job in found if self._queue(job, starved)]
            if queued or len(found) < most:
                break
        self._after(self._pool.scheduler_seconds, self._loop)

    def _queue(self, job: TracedJob, starved: set[str]) -> bool:
        if job.vcpus > self._open:
            starved.add(job.name)
            return False
        self._open -= job.vcpus
        del self._scheduled[job.name]
        self._after(TASK_SECONDS, lambda: self._launch(job))
        return True

    def _launch(self, job: TracedJob) -> None:
        ends = BOOT_SECONDS + job.seconds + SHUTDOWN_SECONDS
        self.launches.append({"name": job.name, "at": self.now, "ended_at": self.now + ends})
        # Seen at the trigger's next look, as the engine sees it.
        self._after(ends + POLL_SECONDS / 2, lambda: self._finish(job))

    def _finish(self, job: TracedJob) -> None:
        self._open += job.vcpus
        self._left -= 1
        for other in self._jobs:
            if job.name in other.depends:
                self._schedule(other)
