"""Is order law? Launches against arrivals, this engine's and those of Airflow's pools.

    python -m benchmarks.bouncer [--quick] [--seed N] [--payers N] [--home FOLDER] --json

``--quick``: 200 payers x 4 jobs through the engine alone in simulated time, pools simulated.
Without it: 50 payers x 4 jobs in a real Airflow on PostgreSQL, on the local EC2.
The last line is one JSON object; ``docs/benchmarks-bouncer.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.bouncer_checker import judge
from benchmarks.bouncer_engine import POLL_SECONDS, EngineWorld, break_engine
from benchmarks.bouncer_pools import SimulatedPools
from benchmarks.bouncer_trace import LIMIT, TracedJob, make_trace

Run = tuple[list[dict[str, Any]], list[dict[str, Any]]]
QUICK = {"seconds": (15.0, 120.0), "load": 1.0}
GRACE_SECONDS = POLL_SECONDS + 1


def measure(run: Run, grace: float) -> dict[str, Any]:
    """Return what the judge says of a run, and how well it used the limit."""
    arrivals, launches = run
    vcpus = {job["name"]: job["vcpus"] for job in arrivals}
    began = min(job["arrived_at"] for job in arrivals)
    makespan = max(launch["ended_at"] for launch in launches) - began
    used = sum(vcpus[one["name"]] * (one["ended_at"] - one["at"]) for one in launches)
    members = [one["ended_at"] for one in launches if one["name"].endswith("/member")]
    return judge(arrivals, launches, LIMIT, grace) | {
        "makespan_s": round(makespan, 1),
        "last_member_s": round(max(members) - began, 1),
        "utilisation": round(used / makespan / LIMIT, 3),
    }


def run_engine(trace: list[TracedJob], *, is_broken: bool = False, is_killed: bool = False) -> Run:
    """Run a trace through the engine, whole, broken, or with its controller killed in the middle."""
    with ExitStack() as stack:
        if is_broken:
            break_engine(stack)
        middle = max(job.data_at for job in trace) / 2
        return EngineWorld(trace).run(kill_at=middle if is_killed else None)


def run_killed(trace: list[TracedJob]) -> Run:
    return run_engine(trace, is_killed=True)


def run_quick(seed: int, payers: int) -> dict[str, Any]:
    """Run the trace three times, once with a killed controller, and under simulated pools."""
    trace = make_trace(seed, payers, seconds=QUICK["seconds"], load=QUICK["load"])
    with ProcessPoolExecutor(2) as processes:
        asked = [processes.submit(run_engine, trace) for _ in range(3)]
        killed = processes.submit(run_killed, trace)
        runs = [measure(one.result(), GRACE_SECONDS) for one in asked]
        after_kill = measure(killed.result(), GRACE_SECONDS)
    orders = {run["order_sha256"] for run in runs}
    return {
        "mode": "quick: engine alone, simulated time; pools simulated",
        "grace_s": GRACE_SECONDS,
        "ours": runs[0] | {"is_order_identical": len(orders) == 1, "runs": len(runs)},
        "ours_controller_killed": after_kill,
        "pools": measure(SimulatedPools(trace).run(), GRACE_SECONDS),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Count who passes whom at the door.")
    parser.add_argument("--quick", action="store_true", help="the engine alone, under a minute")
    parser.add_argument("--json", action="store_true", help="only the last line, without examples")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--payers", type=int, help="default: 200 quick, 50 in a real Airflow")
    parser.add_argument("--home", type=Path, help="where logs, arrivals and launches stay (full)")
    given = parser.parse_args(argv)
    if given.quick:
        found = run_quick(given.seed, given.payers or 200)
    else:
        from benchmarks.bouncer_airflow import run_full  # noqa: PLC0415 - Airflow

        home = given.home or Path(tempfile.mkdtemp(prefix="bouncer-"))
        found = run_full(given.seed, given.payers or 50, home)
    if not given.json:
        print(json.dumps(found, indent=1))
    for value in found.values():
        if isinstance(value, dict):
            value.pop("examples", None)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
