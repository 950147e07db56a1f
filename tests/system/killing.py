"""From a user's action until the machine is shutting down, for each way to end a job.

``python -m tests.system.killing --n 20 --version 3.3 [--paths failed,clear]`` prints the table of
``docs/killing.md``. Exit status: 0 all is as it should be; 10 a job outlived its end, or a living
one was killed; 11 nobody did, and the p99 of a row exceeds its bound; 1 something did not start.
"""
# ruff: noqa: T201 - its output is its purpose

import argparse
import contextlib
import math
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.system.airflow_versions import VERSIONS
from tests.system.demo_stage import no_proxies
from tests.system.killing_acts import ACTS
from tests.system.killing_paths import BYSTANDERS, PATHS
from tests.system.killing_world import KillingWorld
from tests.system.postgres import Postgres
from tests.system.services import ServiceError, wait_until

BYSTANDER_JOBS = 3
PATIENCE_SECONDS = 45.0
EXIT_FINDINGS = 10
EXIT_SLOW = 11
BATCHES = (
    ("failed", "success", "clear", "delete"),
    ("execution_deferred", "dagrun", "deferral"),
    ("execution_worker",),
    ("sigterm",),
    ("drain",),
    ("stalled", "down"),
)
"""Paths whose jobs are started together; each is ended on its own."""


@dataclass(frozen=True)
class Row:
    """What came of one path on one Airflow."""

    path: str
    version: str
    seconds: tuple[float, ...]
    """From the action to ``shutting-down``, a machine each."""
    jobs: int
    false_kills: int
    survivors: int
    bound: float | None
    """Seconds that p99 must not exceed; None where nobody may be killed."""

    @property
    def is_clean(self):
        return not (self.false_kills or self.survivors)

    def holds(self, times=1.0):
        """Whether p99 is within the bound, or within some times the bound on a busy machine."""
        if self.bound is None:
            return True
        return bool(self.seconds) and percentile(self.seconds, 0.99) <= self.bound * times


def percentile(values, share):
    """Nearest rank: the smallest value that at least this share does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def render(row, path):
    """One line of the table."""
    times = "| - | - "
    if row.seconds:
        p50, p99 = (f"{percentile(row.seconds, share):.1f} s" for share in (0.5, 0.99))
        times = f"| {p50} | {p99} "
    left = f" ({row.survivors} outlived it)" if row.survivors else ""
    return (
        f"| {path.title} | {row.version} | {row.jobs}{left} {times}"
        f"| {row.false_kills} | {path.ended_by} | {path.bound} |"
    )


def name_exceeding(rows, times=1.0):
    """Return a line for each row whose p99 exceeds its bound."""
    titles = {path.name: path.title for path in PATHS}
    return [
        f"{titles[row.path]}, {row.version}: "
        + (f"p99 {percentile(row.seconds, 0.99):.1f} s" if row.seconds else "nothing measured")
        + f", bound {row.bound * times:.0f} s"
        for row in rows
        if not row.holds(times)
    ]


def judge(rows):
    """Return the exit status, and what is to be said about it."""
    if not all(row.is_clean for row in rows):
        return EXIT_FINDINGS, ["a job outlived its end, or a living one was killed"]
    if exceeding := name_exceeding(rows):
        return EXIT_SLOW, [f"exceeds its bound: {line}" for line in exceeding]
    return 0, []


HEADER = (
    "| path | Airflow | n | p50 | p99 | false kills | what ends the job | bound |\n"
    "|---|---|---|---|---|---|---|---|"
)


def play(world, path):
    """Do what the path does, and look at its machines."""
    before = world.machines.of(path.name)
    mine = {
        instance_id: job
        for job, machines in world.machines.by_job.items()
        for instance_id in machines
        if instance_id in before
    }
    moments = ACTS[path.name](world, path)
    if not path.is_kill:
        false_kills = len(before) - len(world.machines.living(path.name) & set(before))
        return (), false_kills, 0
    with contextlib.suppress(ServiceError):  # who lives on is a finding
        wait_until(
            lambda: not world.machines.living(path.name) & set(before),
            PATIENCE_SECONDS,
            "the machines to end",
        )
    seconds, found = [], world.machines.of(path.name)
    for instance_id, job in mine.items():
        ended = found[instance_id].get("shutting-down")
        if ended is not None:
            seconds.append(ended - moments[f"job-{job.rpartition('-')[2]}"])
    # Whoever ended before its time was not ended by the path.
    early = sum(one < -0.5 for one in seconds)
    return tuple(seconds), early, len(before) - len(seconds)


def run(version, names, n, home, tell=print, bystanders=BYSTANDER_JOBS):
    """Play the paths on one Airflow; returns a row for each."""
    paths = {path.name: path for path in PATHS if path.name in names}
    rows = []
    with contextlib.ExitStack() as stack:
        postgres = Postgres(Path(home) / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        world = KillingWorld(version, Path(home) / "world", postgres, paths.values(), n, bystanders)
        world.open(stack)
        for batch in BATCHES:
            mine = [paths[name] for name in batch if name in paths]
            if mine:
                world.start(mine)
            for path in mine:
                before = len(world.machines.living(BYSTANDERS))
                seconds, false_kills, survivors = play(world, path)
                false_kills += before - len(world.machines.living(BYSTANDERS))
                rows.append(
                    Row(path.name, version.name, seconds, n, false_kills, survivors,
                        path.bound_seconds)
                )  # fmt: skip
                tell(render(rows[-1], path))
            for path in mine:
                world.finish(path)
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description="Kill jobs in every way, and take the time.")
    parser.add_argument("--n", type=int, default=20, help="jobs of each path (default: 20)")
    parser.add_argument("--version", choices=[one.name for one in VERSIONS], help="default: both")
    parser.add_argument("--paths", help="names, with commas; default: all")
    given = parser.parse_args(argv)
    known = [path.name for path in PATHS]
    names = given.paths.split(",") if given.paths else known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no such paths: {', '.join(unknown)}; known: {', '.join(known)}")
    no_proxies()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows, began = [], time.monotonic()
    print(HEADER, flush=True)
    for version in VERSIONS:
        if given.version not in (None, version.name):
            continue
        home = Path(tempfile.mkdtemp(prefix="killing-"))
        home.chmod(0o755)
        try:
            rows += run(version, names, given.n, home, lambda line: print(line, flush=True))
        except (ServiceError, OSError) as error:
            print(f"killing: {error}; logs: {home}", file=sys.stderr)
            return 1
        if judge(rows)[0]:
            print(f"logs: {home}", file=sys.stderr)
        else:
            shutil.rmtree(home)
        if not all(row.is_clean for row in rows):
            break
    kills, false_kills = (sum(len(r.seconds) for r in rows), sum(r.false_kills for r in rows))
    took = time.monotonic() - began
    print(f"{kills} jobs ended, {false_kills} living ones killed, {took:.0f} s")
    status, words = judge(rows)
    for line in words:
        print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
