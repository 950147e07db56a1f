"""CPU time of one admission decision, everything pure that a controller computes included.

    python -m benchmarks.admission [--json] [--rounds N]

Entries with limits of every kind, dependencies, a hundred holds and promotions, 96 vCPUs out. The
last line is one JSON object: milliseconds of CPU (best of the rounds) by number of waiting entries.
To hold: 20 ms for 1,000 and 200 ms for 10,000.
"""

import argparse
import json
import random
import time

from airflow_ephemeral_ec2.model.admission import admit
from airflow_ephemeral_ec2.model.arrivals import merge_arrivals
from airflow_ephemeral_ec2.model.order import OpenJobs, find_open_obstacle
from airflow_ephemeral_ec2.model.queue import QueueEntry, QueueState, Stage
from airflow_ephemeral_ec2.model.queue_forming import form_queue
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, OrderTarget, QueueOrder
from airflow_ephemeral_ec2.model.spec import Limits

SIZES = (1_000, 10_000)
TO_HOLD_MS = {1_000: 20.0, 10_000: 200.0}
JOBS = {"member": (), "eligibility": ("member",), "claims": ("eligibility",), "downstream": ()}
READ_BY = {
    "member": ("eligibility", "claims"),
    "eligibility": ("claims",),
    "claims": (),
    "downstream": (),
}
NOW = 1_000_000.0
RUNNING = 24


def make_entries(count: int, seed: int) -> list[QueueEntry]:
    """Make entries of ``count / 4`` payers; each waits for something else."""
    rng = random.Random(seed)  # noqa: S311 - a trace, no secret
    payers = [f"payer{number}" for number in range(count // 4)]
    limits = Limits(
        vcpus=960, on_demand=900, spot=200, payers=dict.fromkeys(payers, 64), jobs={"claims": 400}
    )
    entries = []
    for number in range(count):
        payer, (job, needs) = payers[number % len(payers)], rng.choice(list(JOBS.items()))
        entries.append(
            QueueEntry(
                jobkey=f"{number:040x}", attempt=1, nonce="n", payer=payer, job=job,
                run_key=f"run{number % 3}", dag_id=f"payer_{payer}",
                aws_conn_id="aws_default", region="us-east-1", account="123456789012",
                business_date=f"2026-03-{rng.randint(1, 28):02d}", priority=rng.randint(1, 999),
                is_backfill=rng.random() < 0.2, vcpus=rng.choice((2, 4, 8, 16, 32)),
                capacity_type=rng.choice(("on-demand", "spot", "spot-then-on-demand")),
                depends_on=needs, dependents=READ_BY[job], in_order_by_date=rng.random() < 0.1,
                max_runtime=rng.randint(60, 7_200), max_wait=None, requested_at=NOW + number,
                supersedes=None, limits=limits, table="payers.yaml", table_version="v1",
                title=f"{payer}/{job}",
            )
        )  # fmt: skip
    return entries


def make_orders(entries: list[QueueEntry]) -> list[QueueOrder]:
    return [
        QueueOrder(
            action=OrderAction.HOLD if number % 2 else OrderAction.PROMOTE,
            target=OrderTarget(payer=entry.payer, job=entry.job),
            by="ops", reason="bad file", at=NOW + number,
        )
        for number, entry in enumerate(entries[:: max(len(entries) // 100, 1)])
    ]  # fmt: skip


def measure(count: int, rounds: int, seed: int = 4) -> dict[str, float]:
    entries = make_entries(count + RUNNING, seed)
    state = merge_arrivals(QueueState(), entries)
    known = dict(state.entries)
    for entry in entries[:RUNNING]:
        launched = {"stage": Stage.LAUNCHED, "vcpus": entry.vcpus, "launched_at": NOW - 60}
        known[entry.name] = known[entry.name].model_copy(update=launched)
    state = state.model_copy(update={"entries": known})
    orders = make_orders(entries)
    best, in_admit = float("inf"), float("inf")
    for _ in range(rounds):
        began = time.process_time()
        open_jobs = OpenJobs(entries)
        obstacles = {
            entry.name: why
            for entry in entries
            if (why := find_open_obstacle(entry, open_jobs)) is not None
        }
        queue, limits = form_queue(entries, state, orders, obstacles)
        formed = time.process_time()
        admission = admit(queue, limits, NOW)
        ended = time.process_time()
        best, in_admit = min(best, ended - began), min(in_admit, ended - formed)
    assert len(admission.waiting) + len(admission.admitted) == count  # noqa: S101
    return {"decision_ms": round(best * 1e3, 1), "admit_ms": round(in_admit * 1e3, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    options = parser.parse_args()
    found = {}
    for count in SIZES:
        found[str(count)] = result = measure(count, options.rounds)
        if not options.json:
            print(
                f"{count:>6} waiting: {result['decision_ms']} ms "
                f"(to hold: {TO_HOLD_MS[count]:g}), {result['admit_ms']} of it in admit"
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
