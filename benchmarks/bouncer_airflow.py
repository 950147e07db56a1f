"""The trace in a real Airflow on PostgreSQL with two triggerers, on the local EC2."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow_ephemeral_ec2.local.testing import local_ec2
from benchmarks.bouncer_pools import read_pool
from benchmarks.bouncer_trace import BOOT_TIMEOUT, LIMIT, SIZES, STOP_GRACE, make_trace
from tests.system.airflow_client import AirflowError
from tests.system.airflow_settings import EngineSettings
from tests.system.airflow_versions import AirflowThree
from tests.system.attempt_evidence import living_machines
from tests.system.demo_stage import no_proxies, seed
from tests.system.postgres import Postgres
from tests.system.services import ServiceError, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.bouncer_trace import TracedJob

REAL = {"seconds": (5.0, 15.0), "load": 2.0, "early": 0.0}
"""A machine is out for some seconds more than its work takes, so the load is higher than it says."""
GRACE_SECONDS = 3.0
"""Two looks of the trigger (1 s each) and a call."""
RUN_SECONDS = 1_800.0
PARTS = {
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "triggerer-2": "triggerer",
    "dag-processor": "dag-processor",
    "api-server": "api-server",
}
DAG_FILE = """\
import json
from pathlib import Path

from airflow.providers.common.compat.sdk import get_parsing_context

from airflow_ephemeral_ec2 import payer_dags

wanted = get_parsing_context().dag_id
for table in sorted(Path(__file__).parent.glob("*.yaml")):
    if wanted not in (None, table.stem):
        continue
    found = payer_dags(table, dag_id=table.stem)
    slots = table.with_suffix(".slots")
    if slots.exists():
        told = json.loads(slots.read_text("utf-8"))
        for task in found[table.stem].tasks:
            task.pool, task.pool_slots = told["pool"], told["slots"][task.task_id]
    globals().update(found)
"""
TASKS = """
SELECT dag_id, task_id, state, EXTRACT(EPOCH FROM scheduled_dttm)
FROM task_instance WHERE run_id = %s
"""
Run = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def write_table(path: Path, jobs: Sequence[TracedJob], *, is_limited: bool) -> None:
    """Write one payer's table; JSON is YAML."""
    rows = {
        job.job: {
            "priority": job.priority,
            "instance_types": [f"m7i.{SIZES[job.vcpus]}"],
            "command": ["sleep", str(job.seconds)],
            "max_runtime": f"{job.max_runtime}s",
            "depends_on": [name.partition("/")[2] for name in job.depends],
        }
        for job in jobs
    }
    table = {
        "version": 1,
        "aws": {"aws_conn_id": "aws_default", "region": "us-east-1"},
        "defaults": {
            "ami": "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
            "boot_timeout": f"{BOOT_TIMEOUT}s",
            "stop_grace": f"{STOP_GRACE}s",
            "subnets": ["subnet-0a1"],
            "security_groups": ["sg-0c3"],
            "instance_profile": "payer-machine",
        },
        "jobs": rows,
        "payers": {jobs[0].payer: {}},
    }
    limits = {"limits": {"vcpus": LIMIT}} if is_limited else {}
    path.write_text(json.dumps(table | limits, indent=1), encoding="utf-8")


class Stage:
    """One Airflow and one local EC2 for all runs."""

    def __init__(self, home: Path, trace: Sequence[TracedJob]) -> None:
        self.home, self.trace = home, trace
        self.payers = sorted({job.payer for job in trace})
        self.engine = EngineSettings(environment="bouncer")
        self._lay_out()

    def _lay_out(self) -> None:
        dags = self.home / "dags"
        dags.mkdir(parents=True)
        (dags / "payer_pipelines.py").write_text(DAG_FILE, encoding="utf-8")
        for payer in self.payers:
            jobs = [job for job in self.trace if job.payer == payer]
            write_table(dags / f"ours_{payer}.yaml", jobs, is_limited=True)
            write_table(dags / f"pools_{payer}.yaml", jobs, is_limited=False)
            told = {"pool": read_pool()["name"], "slots": {job.job: job.vcpus for job in jobs}}
            (dags / f"pools_{payer}.slots").write_text(json.dumps(told), encoding="utf-8")

    def open(self, stack: ExitStack) -> None:
        """Start everything, and make the pool."""
        pool = read_pool()
        postgres = Postgres(self.home / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        self.airflow = AirflowThree(
            self.home / "airflow", self.home / "dags", postgres, self.engine, parts=PARTS
        )
        stack.callback(self.airflow.stop)
        most = str(pool["max_tis_per_query"])
        self.airflow.components.environ.update(
            AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY=most, AIRFLOW__CORE__PARALLELISM=most
        )
        self.cloud = stack.enter_context(
            local_ec2(seed(self.engine), self.home / "ec2", pending=0.1, stop_grace=1)
        )
        self.airflow.components.migrate()
        self.airflow.start(self.cloud)
        self.airflow.wait_until_ready()
        names = [f"{kind}_{payer}" for payer in self.payers for kind in ("ours", "pools")]
        self.airflow.wait_for_dags(names, RUN_SECONDS)
        body = {name: pool[name] for name in ("name", "slots", "include_deferred")}
        self.airflow.client.ask("POST", "/api/v2/pools", body)

    def run(self, kind: str, number: int, *, kills: bool = False) -> dict[str, Run]:
        """Run the trace once; returns arrivals by what they are measured by, and launches."""
        run_id, seen, began = f"run-{number}", len(self.cloud.lines()), time.time()
        starts = sorted({(job.data_at, job.payer, job.date) for job in self.trace})
        middle = len(starts) // 2
        for place, (data_at, payer, date) in enumerate(starts):
            time.sleep(max(began + data_at - time.time(), 0))
            self._trigger(f"{kind}_{payer}", run_id, self._date(date, number))
            if kills and place == middle:
                self.airflow.components.kill("triggerer")
        wait_until(lambda: self._is_quiet(kind, run_id), RUN_SECONDS, f"{kind} {run_id}")
        if kills:
            self.airflow.components.start_part("triggerer")
        return self._evidence(run_id, self.cloud.lines()[seen:], number)

    def _trigger(self, dag_id: str, run_id: str, date: str) -> None:
        """Start a run; again where a busy API server does not answer."""
        for _ in range(10):
            try:
                self.airflow.trigger(dag_id, run_id, date)
            except TimeoutError:
                continue
            except AirflowError as error:
                if error.status not in (409, 500):
                    raise
                if error.status == 500:
                    continue
            return
        raise ServiceError(f"{dag_id} {run_id}: Airflow does not take the run")

    @staticmethod
    def _date(date: str, number: int) -> str:
        """Each run has dates of its own, in the same order."""
        return date.replace("2026-03", f"2026-{number:02}")

    def _is_quiet(self, kind: str, run_id: str) -> bool:
        time.sleep(1)
        rows = self.airflow.rows(TASKS, run_id)
        states = [row[2] for row in rows if row[0].startswith(kind)]
        if "failed" in states:
            raise RuntimeError(f"{run_id}: {[row[:2] for row in rows if row[2] == 'failed']}")
        is_done = len(states) == len(self.trace) and set(states) == {"success"}
        return is_done and not living_machines(self.cloud)

    def _evidence(self, run_id: str, lines: list[dict[str, Any]], number: int) -> dict[str, Run]:
        ends, names, puts = {}, {}, {}
        for line in lines:
            if line.get("event") == "state":
                tags = line["tags"]
                name = f"{tags['ephemeral-ec2:payer']}/{tags['ephemeral-ec2:job']}"
                names[line["instance_id"]] = name, tags["ephemeral-ec2:jobkey"]
                if line["state"] == "terminated":
                    ends[line["instance_id"]] = line["t"]
            elif line.get("action") == "PutObject" and line["status"] == 200:
                key = line["params"]["Key"].rpartition("/queue/")[2]
                puts.setdefault(key.rpartition("-a")[0], line["t"])
        launches, keys = {}, {}
        for line in lines:
            if line.get("action") == "RunInstances" and line["status"] == 200:
                machine = line["instance_id"]
                name, keys[name] = names[machine][0], names[machine][1]
                note = {"name": name, "at": line["t"] - line["seconds"], "ended_at": ends[machine]}
                launches.setdefault(machine, note)
        tasks = {
            f"{dag.partition('_')[2]}/{task}": float(at)
            for dag, task, _, at in self.airflow.rows(TASKS, run_id)
        }
        jobs = {job.name: job for job in self.trace}
        by = {"entry": {name: puts[keys[name]] for name in jobs}, "airflow": tasks}
        return {
            what: (
                [
                    job.arrival(times[name]) | {"date": self._date(job.date, number)}
                    for name, job in jobs.items()
                ],
                list(launches.values()),
            )
            for what, times in by.items()
        }

    def keep(self, what: str, run: Run) -> None:
        """Keep what the judge read."""
        for name, lines in zip(("arrivals", "launches"), run, strict=True):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (self.home / f"{what}-{name}.jsonl").write_text(text, encoding="utf-8")


def run_full(seed_number: int, payers: int, home: Path) -> dict[str, Any]:
    """Run ours, pools, ours with a triggerer killed, and ours twice more."""
    from benchmarks.bouncer import measure  # noqa: PLC0415 - it imports this module

    no_proxies()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    trace = make_trace(seed_number, payers, **REAL)
    found: dict[str, Any] = {"mode": "full: real Airflow", "grace_s": GRACE_SECONDS}
    runs = (("ours", "ours"), ("pools", "pools"), ("ours", "ours_triggerer_killed"),
            ("ours", "ours_2"), ("ours", "ours_3"))  # fmt: skip
    with ExitStack() as stack:
        stage = Stage(home, trace)
        stage.open(stack)
        for number, (kind, name) in enumerate(runs, 3):
            evidence = stage.run(kind, number, kills=name.endswith("killed"))
            run = evidence["airflow" if kind == "pools" else "entry"]
            stage.keep(name, run)
            found[name] = measure(run, GRACE_SECONDS)
            for what, other in evidence.items():
                judged = measure(other, GRACE_SECONDS)
                words = "inversions", "with_room"
                found[name][f"from_{what}"] = {word: judged[word] for word in words}
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    orders = {found[name]["order_sha256"] for name in ("ours", "ours_2", "ours_3")}
    found["ours"]["is_order_identical"] = len(orders) == 1
    return found
