"""A thousand jobs admitted at once: launched in order, at the rate that EC2 allows, each once?

    python -m benchmarks.launching [--quick] [--json] [--jobs N]

The endpoint refuses what EC2 would refuse (RunInstances: 5 at once, then 2 a second). Time is not
scaled: ``--quick`` launches 100 jobs instead of 1,000.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.endpoint.throttle import EC2_BUCKETS
from benchmarks.endpoint_process import EndpointProcess, fake_aws
from benchmarks.machine import describe_machine
from benchmarks.operator_pool import launch_with_operators
from benchmarks.records import Job, open_objects, plan_jobs
from benchmarks.subjects import until_launch
from benchmarks.triggerer_process import TriggererProcess, triggerer

PRIORITIES = (100, 900, 500, 300, 700)
BURST, PER_SECOND = EC2_BUCKETS["RunInstances"]
SLACK_SECONDS = 300.0


def run_ours(count: int) -> dict[str, Any]:
    """Let the triggers of all jobs wait for their launch, in a runner that has just started."""
    jobs = plan_jobs(count, priorities=PRIORITIES)
    with tempfile.TemporaryDirectory(prefix="launching-") as name, fake_aws() as endpoint:
        folder = Path(name)
        endpoint.load(folder / "load.jsonl", open_objects(jobs))
        endpoint.ask("throttle", buckets=EC2_BUCKETS)
        triggers = [until_launch(job).trigger for job in jobs]
        with triggerer(sys.executable, endpoint, triggers, folder / "run") as runner:
            numbers = follow(runner, endpoint, count)
        order = [job.record.placements[0].client_token for job in sorted(jobs, key=importance)]
        return numbers | judge_launches(endpoint, order)


def importance(job: Job) -> tuple[int, str, float, str]:
    """Who comes first: priority, business date, arrival."""
    record = job.record
    return (-record.spec.priority, record.business_date, record.requested_at, job.name)


def follow(runner: TriggererProcess, endpoint: EndpointProcess, count: int) -> dict[str, Any]:
    """Wait until all are launched and their triggers know; weigh the runner meanwhile."""
    until = time.monotonic() + count / PER_SECOND + SLACK_SECONDS
    threads, rss, cpu = 0, 0.0, 0.0
    while time.monotonic() < until and not runner.heard.is_over:
        if runner.heard.runner_pid:
            weight = runner.weigh()
            threads, rss = max(threads, weight.threads), max(rss, weight.rss_mb)
            cpu = weight.cpu_seconds
        if len(runner.heard.ended) >= count:
            break
        time.sleep(1)
    calls = endpoint.calls()
    return {
        "jobs": count,
        "triggers_fired": len(runner.heard.ended),
        "failed": sum(not ok for ok in runner.heard.ended.values()),
        "threads_max": threads,
        "rss_mb": round(rss),
        "cpu_s": round(cpu, 1),
        "longest_block_s": max(runner.gaps(), default=0.05),
        "calls_per_launch": round(sum(calls.values()) / count, 1),
        "calls": dict(sorted(calls.items())),
    }


def judge_launches(endpoint: EndpointProcess, order: list[str]) -> dict[str, Any]:
    """
    Compare what the endpoint launched with what should have been launched, and when.

    :param order: client tokens, the most important first; empty: there is no order
    """
    found = endpoint.ask("launches")
    first: dict[str, float] = {}
    for at, token in found["launches"]:
        first.setdefault(token, at)
    times = sorted(first.values())
    seconds = times[-1] - times[0] if len(times) > 1 else 0.0
    rank = {token: number for number, token in enumerate(order)}
    passed, furthest = 0, -1
    for token in sorted(first, key=lambda token: first[token]):
        passed += rank.get(token, furthest) < furthest
        furthest = max(furthest, rank.get(token, furthest))
    return {
        "launched": len(first),
        "double_launches": found["instances"] - len(first),
        "passed_by_a_less_important": passed if order else None,
        "seconds": round(seconds, 1),
        "seconds_at_ec2s_rate": round(max(len(first) - BURST, 0) / PER_SECOND, 1),
        "launches_per_s": round((len(first) - BURST) / seconds, 2) if seconds else None,
        "throttled_calls": sum(endpoint.ask("counts")["refused"].values()),
    }


def run_operators(count: int) -> dict[str, Any]:
    """Let the amazon provider's operator launch as many, on as many workers as Airflow has slots."""
    with fake_aws() as endpoint:
        endpoint.ask("throttle", buckets=EC2_BUCKETS)
        numbers = launch_with_operators(endpoint, count)
        return {"jobs": count, **numbers, **judge_launches(endpoint, [])}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 jobs: about a minute")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--jobs", type=int, help="jobs (1,000; quick: 100)")
    options = parser.parse_args()
    count = options.jobs or (100 if options.quick else 1_000)
    result: dict[str, Any] = {"benchmark": "launching", "is_quick": options.quick}
    result["machine"] = describe_machine()
    with ThreadPoolExecutor(2) as pool:
        # Both wait for EC2 most of the time, so they do not disturb each other.
        ours, operators = pool.submit(run_ours, count), pool.submit(run_operators, count)
        result |= {"ours": ours.result(), "EC2CreateInstanceOperator": operators.result()}
    for name in ("ours", "EC2CreateInstanceOperator"):
        print(f"{name}: {json.dumps(result[name])}", file=sys.stderr)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
