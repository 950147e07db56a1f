"""The stage of the payer runs: a table of small payers, and what their jobs leave behind."""

import json
from collections import defaultdict
from pathlib import Path

COMMAND = """\
name="$EPHEMERAL_PAYER=$EPHEMERAL_JOB=$EPHEMERAL_BUSINESS_DATE"
left=$(mktemp "$RUNS/$name=XXXXXXXX") || exit 9
date +%s.%N > "$left"; sleep 0.3; date +%s.%N >> "$left"
case "$EPHEMERAL_PAYER/$EPHEMERAL_JOB/$EPHEMERAL_BUSINESS_DATE/$EPHEMERAL_ARRAY_INDEX" in
bolt/member/2026-03-02/0) mkdir "$RUNS/bolt-has-failed" 2>/dev/null && exit 65; exit 0;;
cora/member/*|dana/claims/*/0) exit 99;;
esac
"""
"""Each execution leaves a file with its begin and end. Bolt fails once; cora's first job and one
of the two parts of dana's claims have nothing to do."""

DAG_FILE = """\
from pathlib import Path

from airflow_ephemeral_ec2 import payer_dags

globals().update(payer_dags(Path(__file__).with_name("payers.yaml")))
"""
SCHEDULE = "0 2 * * *"
ARRAY = {
    "claims": {"array_size": 2},
    "report": {"depends_on": ["claims"], "command": ["sh", "-c", COMMAND]},
}


def write_stage(dags, runs):
    """Write DAG file and table, and make the folder of the traces."""
    dags.mkdir(parents=True)
    runs.mkdir()
    runs.chmod(0o777)  # every instance is a user of its own
    table = {
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
            "env": {"RUNS": str(runs)},
            "command": ["sh", "-c", COMMAND],
        },
        "jobs": {"member": {"priority": 900}, "claims": {"depends_on": ["member"]}},
        "payers": {
            "acme": {"schedule": SCHEDULE},
            "bolt": {"schedule": SCHEDULE},
            "cora": {"jobs": ARRAY},
            "dana": {"jobs": ARRAY},
            "echo": {"schedule": "asset:ephemeral-ec2://payer/dana"},
        },
    }
    # JSON is YAML.
    (dags / "payers.yaml").write_text(json.dumps(table, indent=1), encoding="utf-8")
    (dags / "payers.py").write_text(DAG_FILE, encoding="utf-8")


def read_traces(runs):
    """Return {(payer, job, business date): [(begin, end) of each execution]}, in seconds."""
    found = defaultdict(list)
    for path in sorted(Path(runs).glob("*=*=*=*")):
        times = tuple(float(line) for line in path.read_text(encoding="ascii").split())
        if len(times) == 2:
            payer, job, date, _ = path.name.split("=")
            found[payer, job, date].append(times)
    return dict(found)
