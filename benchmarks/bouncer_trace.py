"""The seeded trace of ``bouncer``: payers whose data arrives over time, four jobs each."""

import random
from dataclasses import asdict, dataclass
from typing import Any

LIMIT = 64
"""vCPUs."""
SIZES = {2: "large", 4: "xlarge", 8: "2xlarge", 16: "4xlarge", 32: "8xlarge"}
"""vCPUs of m7i types."""
SHARES = {"member": (4, 4, 2, 0, 0), "eligibility": (3, 4, 3, 0, 0)}
"""How often a job has which of the sizes; the others take the data's own size."""
BIG = (2, 3, 4, 3, 2)
PRIORITIES = {"member": 900, "eligibility": 800, "claims": 500, "downstream": 100}
DATES = ("2026-03-01", "2026-03-02", "2026-03-03")
BOOT_TIMEOUT, STOP_GRACE, ALLOWANCE = 120, 20, 300
"""Seconds: two cells of the rows, and what the product adds to every longest lifetime."""


@dataclass(frozen=True)
class TracedJob:
    """One row, and what will come of it."""

    payer: str
    job: str
    date: str
    priority: int
    vcpus: int
    max_runtime: int
    """Seconds, as the row says."""
    seconds: float
    """How long the work really takes."""
    task_seconds: float
    """From the moment that Airflow may run the task until the queue has its entry."""
    depends: tuple[str, ...]
    data_at: float
    """Seconds after the start of the trace when the payer's run begins."""
    is_early: bool
    """All four jobs are asked for at once; the queue keeps their order."""

    @property
    def name(self) -> str:
        return f"{self.payer}/{self.job}"

    @property
    def max_lifetime_s(self) -> int:
        return BOOT_TIMEOUT + self.max_runtime + STOP_GRACE + ALLOWANCE

    def arrival(self, at: float) -> dict[str, Any]:
        """Return what the judge reads."""
        names = ("payer", "job", "date", "priority", "vcpus", "depends")
        facts = {name: value for name, value in asdict(self).items() if name in names}
        return facts | {
            "name": self.name, "max_lifetime_s": self.max_lifetime_s, "arrived_at": at,
        }  # fmt: skip


def make_trace(
    seed: int, payers: int, *, seconds: tuple[float, float], load: float, early: float = 0.25
) -> list[TracedJob]:
    """
    Make a trace.

    :param seconds: shortest and longest work
    :param load: work that arrives in a unit of time, as a part of what the limit takes
    :param early: part of the payers whose four jobs are all asked for at once
    """
    chance = random.Random(seed)  # noqa: S311 - a trace that can be made again
    drawn = [_draw_payer(chance, f"p{number:03}", seconds, early) for number in range(payers)]
    work = sum(job.vcpus * (job.seconds + 4) for jobs in drawn for job in jobs)
    span = work / LIMIT / load
    starts = [chance.uniform(0, span) for _ in drawn]
    return [
        TracedJob(**(asdict(job) | {"data_at": start}))
        for jobs, start in zip(drawn, starts, strict=True)
        for job in jobs
    ]


def _draw_payer(
    chance: random.Random, payer: str, seconds: tuple[float, float], early: float
) -> list[TracedJob]:
    date, extra = chance.choice(DATES), chance.choice((0, 0, 0, 10, 20, 50))
    is_early = chance.random() < early
    jobs: list[TracedJob] = []
    for job, priority in PRIORITIES.items():
        work = round(chance.uniform(*seconds), 2)
        jobs.append(
            TracedJob(
                payer=payer,
                job=job,
                date=date,
                priority=priority + extra,
                vcpus=chance.choices(tuple(SIZES), SHARES.get(job, BIG))[0],
                max_runtime=chance.choice((1, 1, 2, 30)) * 60 + 4 * round(work),
                seconds=work,
                task_seconds=round(chance.uniform(1, 5), 3),
                depends=(jobs[-1].name,) if jobs else (),
                data_at=0.0,
                is_early=is_early,
            )
        )
    return jobs
