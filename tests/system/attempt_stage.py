"""The stage of the attempts: DAG file, config table, and the counter of the jobs themselves."""

import json
import shutil
from collections import Counter
from pathlib import Path

INSIDE = Path(__file__).with_name("inside")

COMMAND = """\
mktemp "$RUNS/$EPHEMERAL_JOB=$EPHEMERAL_ATTEMPT=begin=XXXXXXXX" >/dev/null || exit 9
if [ "$EPHEMERAL_ATTEMPT" = 1 ]; then sleep "$FIRST_SECONDS"; code=$FIRST_EXIT
else sleep 0.2; code=0; fi
mktemp "$RUNS/$EPHEMERAL_JOB=$EPHEMERAL_ATTEMPT=end=XXXXXXXX" >/dev/null || exit 9
exit "$code"
"""
"""Each execution of the work leaves a file of its own, whoever believes that it runs."""

TABLE = {
    "version": 1,
    "aws": {"aws_conn_id": "aws_default", "region": "us-east-1"},
    "limits": {"vcpus": 96},
    "defaults": {
        "ami": "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
        "instance_types": ["m7i.large"],
        "max_runtime": "5m",
        "stop_grace": "1s",
        "subnets": ["subnet-0a1"],
        "security_groups": ["sg-0c3"],
        "instance_profile": "payer-machine",
        "retry_exit_codes": [75],
        "job_retries": 2,
        "infra_retries": 2,
        "command": ["sh", "-c", COMMAND],
    },
}


def write_table(path, runs, jobs):
    """Write a table of one payer; ``jobs`` is {name: (seconds, exit status) of the first attempt}."""
    rows = {
        name: {
            "env": {"RUNS": str(runs), "FIRST_SECONDS": str(seconds), "FIRST_EXIT": str(exit_code)}
        }
        for name, (seconds, exit_code) in jobs.items()
    }
    table = TABLE | {"jobs": rows, "payers": {"tess": {}}}
    # JSON is YAML.
    path.write_text(json.dumps(table, indent=1), encoding="utf-8")


def lay_out(folder, runs, cases, dag_file):
    """Make a DAGs folder for the cases and the folder of the counter."""
    folder.mkdir(parents=True)
    runs.mkdir(exist_ok=True)
    runs.chmod(0o777)  # every instance is a user of its own
    write_table(
        folder / "attempts.yaml",
        runs,
        {case.name: (case.first_seconds, case.first_exit) for case in cases},
    )
    write_cases(folder, cases)
    shutil.copyfile(INSIDE / dag_file, folder / dag_file)


def lay_out_drill(folder, runs, jobs):
    """Make a DAGs folder of some seconds' jobs, which count under their jobkey."""
    folder.mkdir(parents=True)
    runs.mkdir()
    runs.chmod(0o777)
    table = folder / "attempts.yaml"
    write_table(table, runs, {f"job-{number}": (1 + number / 2, 0) for number in range(jobs)})
    command = COMMAND.replace("$EPHEMERAL_JOB=", "$EPHEMERAL_JOBKEY=")
    table.write_text(table.read_text("utf-8").replace(json.dumps(COMMAND), json.dumps(command)))
    shutil.copyfile(INSIDE / "drill_dag.py", folder / "drill_dag.py")


def write_cases(folder, cases):
    """Write what the DAG file reads, at once and whole; Airflow parses it meanwhile."""
    fresh = folder / "cases.new"
    fresh.write_text(json.dumps([case.as_row() for case in cases]), encoding="utf-8")
    fresh.replace(folder / "cases.json")


def count_executions(runs, phase="begin"):
    """Return {(job or jobkey, attempt): how often its work began, or ended}."""
    found = Counter()
    for path in Path(runs).iterdir():
        job, attempt, what, _ = path.name.split("=")
        if what == phase:
            found[job, int(attempt)] += 1
    return found
