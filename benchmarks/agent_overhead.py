"""What the machine adds to a job: seconds before and after the command, bytes of user data, AWS calls.

    python benchmarks/agent_overhead.py [RUNS]

Runs the same job on the local EC2 and reads the times off its API log and the machine's reports.
The code folder holds 1 MB. Prints one row per run and the medians.
"""

import base64
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.hooks.attempts import LaunchOrder, open_attempt
from airflow_ephemeral_ec2.hooks.clients import clients_from_environment
from airflow_ephemeral_ec2.hooks.code_push import push_table, write_lock
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.local.testing import LocalCloud, local_ec2
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread

TABLE = """\
version: 1
aws: {region: us-east-1}
defaults:
  ami: ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
  subnets: [subnet-0a1]
  security_groups: [sg-0c3]
  instance_profile: payer-machine
jobs:
  claims: {instance_types: [m7i.large], command: [python3, claims.py], code: jobs/}
payers:
  acme: {}
"""


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with (
        tempfile.TemporaryDirectory() as folder,
        local_ec2(seed={"state_bucket": "records"}) as aws,
    ):
        os.environ.update(aws.environ)
        rows = measure(aws, Path(folder), runs)
    show(rows)


def measure(aws: LocalCloud, folder: Path, runs: int) -> list[dict[str, float]]:
    """Run the job so often; the environment has the keys of the local EC2."""
    table_path = folder / "payers.yaml"
    (folder / "jobs").mkdir()
    (folder / "jobs" / "claims.py").write_text(
        "import time\nprint(time.time())\nprint(time.time())\n"
    )
    noise = random.Random(1).randbytes(1_000_000)  # noqa: S311 - noise, not a secret
    (folder / "jobs" / "model.bin").write_bytes(noise)
    table_path.write_text(TABLE)
    clients = clients_from_environment("us-east-1", aws.url)
    store, fleet = JobStore(clients.s3, "records", "demo"), Fleet(clients, "demo", "us-east-1")
    pushed = push_table(load_table(table_path), store, lambda _connection, _region: fleet)
    write_lock(table_path.with_suffix(".lock.json"), pushed.lock)
    return [run_once(aws, store, fleet, table_path, number) for number in range(runs)]


def run_once(
    aws: LocalCloud, store: JobStore, fleet: Fleet, table_path: Path, number: int
) -> dict[str, float]:
    table = load_table(table_path)
    store.read_secret()
    before = len(aws.lines())
    order = LaunchOrder(
        table.find("acme", "claims"),
        table.lock,
        str(table_path),
        table.sha256,
        table.limits,
        TaskIdentity("benchmark", f"run {number}", "claims"),
        "e",
        "2026-03-01",
    )
    opened = open_attempt(store, fleet, order)
    calls = [line["action"] for line in aws.lines()[before:] if "action" in line]
    controller = Controller(store, lambda _connection, _region: fleet)
    outcome = wait_in_this_thread(controller, opened.name, lambda _: None, poll_seconds=0.2).outcome
    lines = aws.lines()
    at = {
        line["state"]: line["t"]
        for line in lines
        if line.get("event") == "state" and line["instance_id"] == outcome.machine.instance_id
    }
    written = f"jobs/{outcome.jobkey}/a1/outcome.json"
    puts = (line for line in lines if line.get("action") == "PutObject")
    detected = next(line["t"] for line in puts if line["params"]["Key"].endswith(written))
    # The job says by the same clock when it began and ended; the bucket's has whole seconds only.
    began, ended = map(float, b"".join(store.read_log(outcome.machine.arn)).split())
    return {
        "machine running -> command [s]": began - at["running"],
        "command's end -> power off [s]": at["shutting-down"] - ended,
        "death -> outcome recorded [s]": detected - at["terminated"],
        "user data [bytes]": len(base64.b64decode(opened.record.user_data)),
        "bucket writes before waiting": calls.count("PutObject"),
        "SSM look-ups": calls.count("GetParameter"),
        "EC2 calls before waiting": sum(name.startswith(("Describe", "Run")) for name in calls),
    }


def show(rows: list[dict[str, float]]) -> None:
    table = Table(
        "to hold: <= 1 s each side", *[f"run {n + 1}" for n in range(len(rows))], "median"
    )
    for name in rows[0]:
        values = [row[name] for row in rows]
        text = "{:,.0f}" if all(float(v).is_integer() for v in values) else "{:.2f}"
        table.add_row(name, *map(text.format, values), text.format(statistics.median(values)))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
