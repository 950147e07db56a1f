"""What is measured: which trigger waits for a job, and what its end looks like at the endpoint."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.endpoint_process import REGION
from benchmarks.records import Job, report_of

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 15
"""Seconds between two looks of a peer; the amazon provider's ECS operator has it as its default."""
FOREVER = 1_000_000
ACCOUNT = f"{REGION}:123456789012"


@dataclass(frozen=True)
class Wait:
    """One awaited job: its trigger, and the name by which the endpoint knows what it waits for."""

    trigger: dict[str, Any]
    awaited: str
    leaves: Callable[[], dict[str, str]] = dict
    """Objects that the machine writes before it ends."""


@dataclass(frozen=True)
class Subject:
    """A kind of trigger."""

    name: str
    wait: Callable[[Job], Wait]
    is_peer: bool = True
    """A peer of the amazon provider: it needs aiobotocore, so it runs in the benchmark's venv."""
    ends: bool = True
    """It waits for something that can end."""


def _ours(job: Job) -> Wait:
    kwargs = {
        "jobkey": job.record.jobkey,
        "attempt": 1,
        "aws_conn_id": "aws_default",
        "region": REGION,
        "end_in_triggerer": True,
        "identity": {
            "dag_id": f"payer_{job.record.spec.payer}",
            "run_id": f"manual__{job.record.jobkey}",
            "task_id": job.record.spec.job,
            "map_index": -1,
        },
    }
    classpath = "airflow_ephemeral_ec2.triggers.ec2.EphemeralEC2Trigger"
    trigger = {"classpath": classpath, "kwargs": kwargs}
    return Wait(trigger, job.instance_id, lambda: report_of(job))


def until_launch(job: Job) -> Wait:
    """Wait only until the machine is launched."""
    wait = _ours(job)
    wait.trigger["kwargs"]["until_launch"] = True
    return wait


def _ec2_sensor(job: Job) -> Wait:
    kwargs = {
        "instance_id": job.instance_id,
        "target_state": "terminated",
        "region_name": REGION,
        "poll_interval": INTERVAL,
    }
    classpath = "airflow.providers.amazon.aws.triggers.ec2.EC2StateSensorTrigger"
    return Wait({"classpath": classpath, "kwargs": kwargs}, job.instance_id)


def _ecs(_job: Job) -> Wait:
    arn = f"arn:aws:ecs:{ACCOUNT}:task/bench/{uuid.uuid4().hex}"
    kwargs = {
        "cluster": "bench",
        "task_arn": arn,
        "waiter_delay": INTERVAL,
        "waiter_max_attempts": FOREVER,
        "aws_conn_id": "aws_default",
        "region_name": REGION,
    }
    classpath = "airflow.providers.amazon.aws.triggers.ecs.TaskDoneTrigger"
    return Wait({"classpath": classpath, "kwargs": kwargs}, arn)


def _batch(_job: Job) -> Wait:
    job_id = str(uuid.uuid4())
    kwargs = {
        "job_id": job_id,
        "region_name": REGION,
        "waiter_delay": INTERVAL,
        "waiter_max_attempts": FOREVER,
    }
    classpath = "airflow.providers.amazon.aws.triggers.batch.BatchJobTrigger"
    return Wait({"classpath": classpath, "kwargs": kwargs}, job_id)


def _sleeping(_job: Job) -> Wait:
    return Wait({"classpath": "benchmarks.loop_probe.SleepingTrigger", "kwargs": {}}, "")


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("ours", _ours, is_peer=False),
        Subject("sleeping", _sleeping, is_peer=False, ends=False),
        Subject("EC2StateSensorTrigger", _ec2_sensor),
        Subject("TaskDoneTrigger", _ecs),
        Subject("BatchJobTrigger", _batch),
    )
}
