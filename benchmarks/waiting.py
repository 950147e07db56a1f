"""What it costs to wait: N deferred tasks in Airflow's own trigger runner, ours and three peers.

python -m benchmarks.waiting [--quick] [--json] [--jobs N] [--only NAME ...]
python -m benchmarks.waiting --scale          # 100 to 10,000; writes docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.awake import kept_awake
from benchmarks.endpoint.throttle import EC2_BUCKETS
from benchmarks.endpoint_process import fake_aws
from benchmarks.environment import peers_python
from benchmarks.machine import describe_machine
from benchmarks.measuring import Plan, measure
from benchmarks.records import VCPUS, dead_objects, open_objects, plan_jobs, running_objects
from benchmarks.scale_report import keep_rows, write_report
from benchmarks.subjects import SUBJECTS, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = Plan(warm_seconds=45, steady_seconds=60, deaths=50, deaths_seconds=45, late_seconds=120)
QUICK = Plan(warm_seconds=10, steady_seconds=60, deaths=10, deaths_seconds=15, late_seconds=40)
THROTTLED = ("ours", "EC2StateSensorTrigger")
CROWDED = EC2_BUCKETS | {"Describe": (5.0, 0.2), "unfiltered": (5.0, 0.2)}
"""The buckets are the account's: so much is left where others ask a lot, too."""
THROTTLES = {"EC2 throttles": EC2_BUCKETS, "EC2 throttles and others ask, too": CROWDED}
SCALE = [100, 1_000, 5_000, 10_000]
PEERS_UP_TO = 1_000
"""More than this of the amazon provider's triggers need more memory than most machines have."""


@dataclass(frozen=True)
class Case:
    """One measurement."""

    subject: str
    jobs: int
    plan: Plan
    running: int | None = None
    """So many of the jobs have a machine, and there is no room for the others; None: all."""
    throttle: str = ""
    """One of ``THROTTLES``; empty: EC2 takes all calls."""
    dead: int = 0
    """Machines of the last hour that EC2 still shows."""

    @property
    def title(self) -> str:
        """The subject, and what is special."""
        kind = f", {self.throttle}" if self.throttle else ""
        if self.running is not None:
            kind = f", {self.running} running and the rest queued"
        return self.subject + kind + (f", beside {self.dead:,} dead" if self.dead else "")


def run_case(case: Case) -> dict[str, Any]:
    """Lay the records, run the subject against an endpoint of its own, return its numbers."""
    subject = SUBJECTS[case.subject]
    try:
        python = python_for(subject)
    except (subprocess.CalledProcessError, OSError) as error:
        return {"skipped": f"no environment for the peers: {error}"}
    running = case.jobs if case.running is None else case.running
    with tempfile.TemporaryDirectory(prefix="waiting-") as name, fake_aws() as endpoint:
        folder, jobs = Path(name), plan_jobs(case.jobs)
        limit = None if case.running is None else running * VCPUS
        items = [*open_objects(jobs, limit), *running_objects(jobs[:running])]
        items += dead_objects(plan_jobs(case.dead))
        endpoint.load(folder / "load.jsonl", items)
        if case.throttle:
            endpoint.ask("throttle", buckets=THROTTLES[case.throttle])
        waits = [subject.wait(job) for job in jobs]
        plan = replace(case.plan, deaths=min(case.plan.deaths, running))
        with kept_awake():
            numbers = measure(subject, waits, running, endpoint, python, plan, folder / "run")
        if case.throttle:
            numbers["throttled_calls"] = sum(endpoint.ask("counts")["refused"].values())
    show(case, numbers)
    return {name: value for name, value in numbers.items() if value is not None}


def python_for(subject: Subject) -> str:
    return str(peers_python()) if subject.is_peer else sys.executable


def show(case: Case, numbers: dict[str, Any]) -> None:
    """Print a line as soon as it is known; on stderr, for a long run's spectator."""
    names = ("calls_per_min", "cpu_s_per_min", "rss_mb", "detect_p50_s", "detect_p99_s", "failed")
    shown = ", ".join(f"{name} {numbers.get(name)}" for name in (*names, "longest_block_s"))
    print(f"{case.jobs} {case.title}: {shown}", file=sys.stderr, flush=True)


def run_together(cases: list[Case]) -> dict[str, dict[str, Any]]:
    """Run small cases at the same time: CPU and calls are each process's own all the same."""
    with ThreadPoolExecutor(len(cases)) as pool:
        found = pool.map(run_case, cases)
    return dict(zip((case.subject for case in cases), found, strict=True))


def run_in_turn(cases: list[Case]) -> dict[str, dict[str, Any]]:
    return {case.subject: run_case(case) for case in cases}


def compare(jobs: int, names: list[str], *, is_quick: bool) -> dict[str, Any]:
    """Measure each subject, then those that ask EC2 once more while it throttles."""
    plan = QUICK if is_quick else FULL
    run: Callable[[list[Case]], dict[str, dict[str, Any]]]
    run = run_together if is_quick else run_in_turn
    result: dict[str, Any] = run([Case(name, jobs, plan) for name in names])
    for throttle in THROTTLES:
        if throttled := throttled_cases(names, plan, throttle):
            result[throttle] = run(throttled)
    return result


def throttled_cases(names: list[str], plan: Plan, throttle: str) -> list[Case]:
    """300 jobs awaited while EC2 takes so many calls."""
    calm = replace(plan, deaths=0)
    return [Case(name, 300, calm, throttle=throttle) for name in THROTTLED if name in names]


def scale(names: list[str], sizes: list[int]) -> Iterator[dict[str, Any]]:
    """Measure ours at each size, peers as far as memory goes; and the special cases."""
    cases = [
        Case(name, jobs, FULL)
        for jobs in sizes
        for name in names
        if jobs <= PEERS_UP_TO or not SUBJECTS[name].is_peer
    ]
    if "ours" in names:
        cases.append(Case("ours", max(sizes), FULL, running=min(100, max(sizes) // 2)))
        # Machines that live for half an hour each leave so many dead that are shown for an hour.
        some = min(1_000, max(sizes))
        cases.append(Case("ours", some, FULL, dead=2 * some))
    for throttle in THROTTLES:
        cases += throttled_cases(names, FULL, throttle)
    for case in cases:
        load = describe_machine()["load_before"]
        yield {"subject": case.title, "load_before": load, **run_case(case)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="100 jobs, all subjects at once: 3 min"
    )
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--jobs", type=int, help="awaited jobs (1,000; quick: 100)")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--scale", action="store_true", help="100 to 10,000 jobs, into docs/")
    parser.add_argument("--sizes", nargs="+", type=int, default=SCALE, help="for --scale")
    options = parser.parse_args()
    machine = describe_machine()
    result: dict[str, Any] = {"benchmark": "waiting", "machine": machine}
    if options.scale:
        result["scale"] = []
        for row in scale(options.only, options.sizes):
            result["scale"].append(row)
            # After each: a run of an hour may be cut off.
            write_report(keep_rows(machine, [row]))
    else:
        jobs = options.jobs or (100 if options.quick else 1_000)
        result |= {"jobs": jobs, "is_quick": options.quick}
        result |= compare(jobs, options.only, is_quick=options.quick)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
