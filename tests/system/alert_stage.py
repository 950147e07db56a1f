"""The stage of the alerts: what goes wrong, a machine that nobody asked for, and what was told."""

import json
import shutil
from pathlib import Path

from airflow_ephemeral_ec2.model.plan import (
    TAG_ATTEMPT,
    TAG_ENVIRONMENT,
    TAG_JOB,
    TAG_JOBKEY,
    TAG_MAX_LIFETIME,
    TAG_PAYER,
)
from tests.system.attempt_stage import INSIDE, TABLE

DAG_IDS = ("payer_fay", "payer_gus", "alerting_reaper")
SECRET = "patient 078-05-1120"
NOWHERE = "c7i.large"
"""An instance type that EC2 has none of."""
CROWD = ("one", "two", "three")
"""Jobs of which a limit lets one run at a time."""
UNTIL_GO = """\
until [ -e "$RUNS/go" ]; do sleep 0.2; done
"""


def write_alert_stage(dags, runs):
    """Write DAG file and table into the DAGs folder."""
    command = ["sh", "-c", UNTIL_GO]
    defaults = TABLE["defaults"] | {
        "job_retries": 0,
        "infra_retries": 0,
        "max_runtime": "30m",
        "env": {"RUNS": str(runs)},
    }
    bad = ["sh", "-c", f"echo {SECRET}; echo {SECRET} >&2; exit 65"]
    fay = {
        "bad": {"command": bad},
        "nowhere": {"command": command, "instance_types": [NOWHERE]},
    }
    table = TABLE | {
        "limits": {"payers": {"gus": 2}},
        "defaults": defaults,
        "jobs": {},
        "payers": {
            "fay": {"jobs": fay},
            "gus": {"jobs": {name: {"command": command} for name in CROWD}},
        },
    }
    (dags / "alerts.yaml").write_text(json.dumps(table, indent=1), encoding="utf-8")
    shutil.copyfile(INSIDE / "alerts_dag.py", dags / "alerts_dag.py")


def begin_alerts(airflow, cloud, date):
    """Take the capacity away and start the payers' runs; all goes wrong by itself from here."""
    cloud.add_fault(
        action="RunInstances",
        match={"InstanceType": NOWHERE},
        code="InsufficientInstanceCapacity",
        count=0,
    )
    airflow.trigger("payer_fay", "alerts", date)
    airflow.trigger("payer_gus", "alerts", date)


def read_alerts(home):
    """Return the payloads of what was told."""
    text = (Path(home) / "alerts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read_job_logs(cloud, engine):
    """Return what all jobs have printed."""
    s3, found = cloud.client("s3"), []
    pages = s3.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=engine.bucket, Prefix=f"{engine.environment}/machines/"):
        keys = [item["Key"] for item in page.get("Contents", ()) if "/log/" in item["Key"]]
        found += [s3.get_object(Bucket=engine.bucket, Key=key)["Body"].read() for key in keys]
    return b"".join(found).decode()


def stages(cloud, engine, payer="gus"):
    """Return {job: stage} of a payer's open attempts, as the queue state has them."""
    s3 = cloud.client("s3")
    try:
        state = _read(s3, engine, f"{engine.environment}/queue-state.json")
    except s3.exceptions.NoSuchKey:
        return {}
    found = {}
    for name, known in state.get("entries", {}).items():
        try:
            entry = _read(s3, engine, f"{engine.environment}/queue/{name}.json")
        except s3.exceptions.NoSuchKey:
            continue  # it has just been closed
        if entry["payer"] == payer:
            found[entry["job"]] = known.get("stage", "waiting")
    return found


def make_orphan(cloud, engine, record):
    """
    Launch a machine with the tags of an attempt that is over, as no engine would.

    An earlier pass of the reaper has seen it: the two must lie minutes apart.
    """
    ami = cloud.client("ssm").get_parameter(Name=record["spec"]["ami"].removeprefix("ssm:"))
    tags = {
        TAG_ENVIRONMENT: engine.environment,
        TAG_JOBKEY: record["jobkey"],
        TAG_ATTEMPT: str(record["attempt"]),
        TAG_PAYER: record["spec"]["payer"],
        TAG_JOB: record["spec"]["job"],
        TAG_MAX_LIFETIME: "3600",
    }
    answer = cloud.client("ec2").run_instances(
        ImageId=ami["Parameter"]["Value"],
        InstanceType="m7i.large",
        MinCount=1,
        MaxCount=1,
        SubnetId="subnet-0a1",
        InstanceInitiatedShutdownBehavior="terminate",
        ClientToken="made-by-hand",
        UserData="#!/bin/sh\nexec sleep 3600\n",
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
        ],
    )
    instance_id = answer["Instances"][0]["InstanceId"]
    cloud.wait_for_state(instance_id, "running")
    seen = {"of": {instance_id: {"reason": "not_open", "first_seen": 1000.0}}, "passed_at": 1000.0}
    key = f"{engine.environment}/reaper/{engine.region}.json"
    cloud.client("s3").put_object(Bucket=engine.bucket, Key=key, Body=json.dumps(seen).encode())
    return instance_id


def _read(s3, engine, key):
    return json.loads(s3.get_object(Bucket=engine.bucket, Key=key)["Body"].read())
