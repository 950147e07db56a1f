"""Parsing 500 payers x 4 jobs: this factory, a DAG file written by hand, and dag-factory.

    python -m benchmarks.parsing [--quick] [--json] [--payers N] [--rounds N]

CPU seconds of loading one DAG file in a fresh process that has imported Airflow and the operator,
as the DAG processor does it; the peers take turns, and the median of the rounds counts. To hold:
ours <= 1.2 x by hand. ``one_task_cpu_s`` is the same file loaded for the run of one task.

dag-factory is installed into a folder of its own, without its dependencies (Airflow 3.3 has all of
them): in Airflow's environment its plugin would report each run to its makers. The last line of
the output is one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
DAG_FACTORY = "dag-factory==1.1.0"
JOBS = {"member": 900, "eligibility": 800, "claims": 500, "downstream": 100}
BEFORE = dict(zip(list(JOBS)[1:], JOBS, strict=False))
IMPORTS = {
    "ours": "import airflow_ephemeral_ec2.dag_factory",
    "hand_written": "import airflow_ephemeral_ec2.operators.ec2",
    "dag_factory": "import airflow_ephemeral_ec2.operators.ec2, dagfactory",
}
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
OURS = """\
from pathlib import Path
from airflow_ephemeral_ec2 import payer_dags
globals().update(payer_dags(Path(__file__).with_name("payers.yaml")))
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
BY_FACTORY = """\
from dagfactory import load_yaml_dags
load_yaml_dags(globals_dict=globals(), config_filepath={path!r})
"""
PARSE = """\
import json, sys, time
{imports}
source = open({file!r}, encoding="utf-8").read()
names = {{"__name__": "dag_file", "__file__": {file!r}}}
start = time.process_time()
exec(compile(source, {file!r}, "exec"), names)
seconds = time.process_time() - start
dags = [one for one in names.values() if type(one).__name__ == "DAG"]
print(json.dumps({{"cpu_s": seconds, "dags": len(dags), "tasks": sum(len(d.task_ids) for d in dags)}}))
"""


def write_by_hand(payers: list[str], table: str) -> str:
    """Write the DAG file that a person would: each payer and each task spelled out."""
    text = BY_HAND_HEAD
    for payer in payers:
        text += BY_HAND_DAG.format(payer=payer)
        for job, priority in JOBS.items():
            text += BY_HAND_TASK.format(payer=payer, job=job, priority=priority, table=table)
        text += "    member >> eligibility >> claims >> downstream\n"
    return text


def write_for_dag_factory(payers: list[str], table: str) -> str:
    """Write the same DAGs as dag-factory's YAML (JSON is YAML)."""
    operator = "airflow_ephemeral_ec2.operators.ec2.EphemeralEC2Operator"
    dags = {
        f"payer_{payer}": {
            "default_args": {"start_date": "2024-01-01", "retry_delay_sec": 30},
            "schedule": "0 2 * * *",
            "catchup": False,
            "max_active_runs": 4,
            "tags": ["ephemeral-ec2", payer],
            "tasks": [
                {
                    "task_id": job,
                    "operator": operator,
                    "payer": payer,
                    "job": job,
                    "config_table": table,
                    "retries": 2,
                    "priority_weight": priority,
                    "weight_rule": "absolute",
                    "dependencies": [BEFORE[job]] if job in BEFORE else [],
                }
                for job, priority in JOBS.items()
            ],
        }
        for payer in payers
    }
    return json.dumps(dags, indent=1)


def lay_out(folder: Path, count: int) -> dict[str, Path]:
    """Write the three DAG files; returns {name: file}."""
    payers = [f"p{number}" for number in range(count)]
    table = folder / "payers.yaml"
    table.write_text(HEAD + "".join(f'  {p}: {{schedule: "0 2 * * *"}}\n' for p in payers))
    # A table that was edited a moment ago is not what Airflow meets.
    os.utime(table, (time.time() - 3600,) * 2)
    peer = folder / "dag_factory.yaml"
    peer.write_text(write_for_dag_factory(payers, str(table)))
    texts = {
        "ours": OURS,
        "hand_written": write_by_hand(payers, str(table)),
        "dag_factory": BY_FACTORY.format(path=str(peer)),
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return {name: folder / f"{name}.py" for name in texts}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a measured process: an empty Airflow, nothing reported to anybody."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False",
        "DO_NOT_TRACK": "1",
        **more,
    }


def install_peer(folder: Path) -> None:
    """Install dag-factory into a folder of its own; raises CalledProcessError."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--target", str(folder), DAG_FACTORY]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def parse(name: str, file: Path, folder: Path, **more: str) -> Answer:
    """Load a DAG file in a fresh process; returns its answer, or ``error``."""
    code = PARSE.format(imports=IMPORTS[name], file=str(file))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    folder: Path, payers: int, rounds: int, tell: Callable[[str], None]
) -> dict[str, Answer]:
    """Let the peers take turns; returns {name: {"cpu_s": median, ...} or {"error": ...}}."""
    files = lay_out(folder, payers)
    own = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    paths = dict.fromkeys(files, own)
    paths["dag_factory"] = os.pathsep.join((str(folder / "peer"), own))
    answers: dict[str, list[Answer]] = {name: [] for name in files}
    try:
        install_peer(folder / "peer")
    except (subprocess.SubprocessError, OSError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        answers["dag_factory"] = [{"error": f"cannot install {DAG_FACTORY}: {why[:300]}"}]
    one_task = []
    for number in range(rounds):
        for name, file in files.items():
            if not any("error" in answer for answer in answers[name]):
                answers[name].append(parse(name, file, folder, PYTHONPATH=paths[name]))
        wanted = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": f"payer_p{payers // 2}"}
        one_task.append(parse("ours", files["ours"], folder, PYTHONPATH=own, **wanted))
        tell(
            f"round {number + 1} of {rounds}: {json.dumps({n: a[-1] for n, a in answers.items()})}"
        )
    found = {name: summarise(each, payers) for name, each in answers.items()}
    found["ours"]["one_task_cpu_s"] = summarise(one_task, 1).get("cpu_s")
    return found


def summarise(answers: list[Answer], dags: int) -> Answer:
    """Return the median, or the first error; a file that made other DAGs is an error too."""
    for answer in answers:
        if "error" in answer:
            return {"error": answer["error"]}
        if (answer["dags"], answer["tasks"]) != (dags, dags * len(JOBS)):
            return {"error": f"made {answer['dags']} DAGs with {answer['tasks']} tasks"}
    seconds = [answer["cpu_s"] for answer in answers]
    return {
        "cpu_s": round(statistics.median(seconds), 3),
        "cpu_s_min": round(min(seconds), 3),
        "cpu_s_max": round(max(seconds), 3),
    }


def compare(found: dict[str, Answer]) -> dict[str, Answer]:
    """Add each peer's ratio to the file written by hand."""
    base = found["hand_written"].get("cpu_s")
    for one in found.values():
        if base and "cpu_s" in one:
            one["ratio_to_hand_written"] = round(one["cpu_s"] / base, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, under 30 s")
    parser.add_argument("--json", action="store_true", help="nothing on stdout but the JSON line")
    parser.add_argument("--payers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 5)
    tell = partial(print, file=sys.stderr) if options.json else print
    with tempfile.TemporaryDirectory() as folder:
        found = compare(measure(Path(folder), options.payers, rounds, tell))
    head = {
        "benchmark": "parsing",
        "payers": options.payers,
        "jobs": options.payers * len(JOBS),
        "rounds": rounds,
        "limit_ratio_to_hand_written": 1.2,
        "airflow": importlib.metadata.version("apache-airflow"),
        "peer": DAG_FACTORY,
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}",
    }
    print(json.dumps(head | found))


if __name__ == "__main__":
    main()
