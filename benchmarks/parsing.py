"""Parsing 500 payers x 4 jobs: the factory against a DAG file written by hand, in turn.

    python benchmarks/parsing.py [PAYERS] [ROUNDS]

Prints seconds of CPU per round and the ratio factory / hand-written (to hold: 1.2).
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_ephemeral_ec2.dag_factory import payer_dags

JOBS = {"member": 900, "eligibility": 800, "claims": 500, "downstream": 100}
HEAD = """\
version: 1
aws: {region: us-east-1}
defaults:
  ami: ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
  subnets: [subnet-0a1]
  security_groups: [sg-0c3]
  instance_profile: payer-machine
  instance_types: [m7i.large]
jobs:
  member: {priority: 900, command: [python3, member.py]}
  eligibility: {priority: 800, command: [python3, eligibility.py], depends_on: [member]}
  claims: {priority: 500, command: [python3, claims.py], depends_on: [eligibility]}
  downstream: {priority: 100, command: [python3, downstream.py], depends_on: [claims]}
payers:
"""


BY_HAND_HEAD = """\
from datetime import datetime, timedelta, timezone
from airflow.providers.common.compat.sdk import DAG, Param
from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator
"""
BY_HAND_DAG = """
with DAG(
    "payer_{payer}",
    schedule="0 2 * * *",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=4,
    tags=["ephemeral-ec2", "{payer}"],
    default_args={{"retry_delay": timedelta(seconds=30)}},
    params={{"business_date": Param(None, type=["null", "string"], format="date")}},
) as dag_{payer}:
"""
BY_HAND_TASK = """\
    {job} = EphemeralEC2Operator(
        task_id="{job}",
        payer="{payer}",
        job="{job}",
        config_table="{table}",
        retries=2,
        priority_weight={priority},
        weight_rule="absolute",
    )
"""


def write_by_hand(payers: int, table: str) -> str:
    """Write the DAG file that a person would: each payer and each task spelled out."""
    text = BY_HAND_HEAD
    for number in range(payers):
        payer = f"p{number}"
        text += BY_HAND_DAG.format(payer=payer)
        for job, priority in JOBS.items():
            text += BY_HAND_TASK.format(payer=payer, job=job, priority=priority, table=table)
        text += "    member >> eligibility >> claims >> downstream\n"
    return text


def parse(source: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(source, "by_hand.py", "exec"), names)  # noqa: S102 - how Airflow loads a DAG file
    return names


def seconds(make: Callable[[], Mapping[str, object]]) -> float:
    start = time.process_time()
    make()
    return time.process_time() - start


def main() -> None:
    payers = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "payers.yaml"
        rows = (f'  p{n}: {{schedule: "0 2 * * *"}}\n' for n in range(payers))
        table.write_text(HEAD + "".join(rows))
        source = write_by_hand(payers, str(table))
        ratios = []
        for number in range(rounds):
            factory = seconds(lambda: payer_dags(table))
            hand = seconds(lambda: parse(source))
            ratios.append(factory / hand)
            print(
                f"round {number + 1}: factory {factory:.2f} s, by hand {hand:.2f} s, ratio {ratios[-1]:.2f}"
            )
    print(f"{payers} payers x {len(JOBS)} jobs: median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
