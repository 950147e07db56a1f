"""A table on disk, and what Airflow hands to a task."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude

TABLE = """\
version: 1
aws: {region: us-east-1}
defaults:
  ami: ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
  subnets: [subnet-0a1]
  security_groups: [sg-0c3]
  instance_profile: payer-machine
limits: {vcpus: 96}
jobs:
  member: {instance_types: [m7i.large], command: [python3, member.py], code: jobs/}
  claims: {instance_types: [m7i.large], command: [python3, claims.py], depends_on: [member]}
payers:
  acme: {}
"""
LOCK = {
    "version": 1,
    "code": {"jobs/": {"sha256": "c" * 64, "size_bytes": 3}},
    "instance_types": {"m7i.large": {"vcpus": 2, "memory_mib": 8192, "architecture": "x86_64"}},
    "images": {
        "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64": {
            "architecture": "x86_64",
            "root_device": "/dev/xvda",
        }
    },
}


@pytest.fixture
def table(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "payers.lock.json").write_text(json.dumps(LOCK))
    path = tmp_path / "payers.yaml"
    path.write_text(TABLE)
    return path


@pytest.fixture
def make_context():
    def make(*, max_tries=2, started=datetime(2026, 3, 2, tzinfo=UTC), **params):
        pushed = {}
        ti = SimpleNamespace(
            dag_id="payer_acme",
            run_id="manual__1",
            task_id="claims",
            map_index=-1,
            max_tries=max_tries,
            try_number=1,
            xcom_push=lambda key, value: pushed.update({key: value}),
        )
        run = SimpleNamespace(
            start_date=started,
            logical_date=datetime(2026, 3, 1, tzinfo=UTC),
            partition_key=None,
            run_after=None,
        )
        return {"ti": ti, "dag_run": run, "params": params, "pushed": pushed}

    return make


@pytest.fixture
def end(store, make_record):
    """Ask for a job and record how an attempt of it has ended."""

    def end(job, outcome=Outcome.SUCCEEDED, /, *, date="2026-03-01", **changes):
        made = make_record(job=job, **changes)
        record = made.model_copy(update={"business_date": date})
        store.write_date_index(record)
        ending = conclude(record, Verdict(outcome, "as it came"), Times(requested=1.0))
        return store.write_outcome(ending)

    return end
