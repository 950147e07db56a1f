"""The records of a thousand jobs, as the product itself would write them: the one place that knows how."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.agent.report import empty_report
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_client_token
from airflow_ephemeral_ec2.model.plan import (
    TAG_ATTEMPT,
    TAG_ENVIRONMENT,
    TAG_JOB,
    TAG_JOBKEY,
    TAG_MAX_LIFETIME,
    TAG_PAYER,
    LaunchFacts,
    LaunchRecord,
    plan_entry,
    plan_launch,
)
from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry, QueueState, Stage
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts, JobSpec, Limits
from benchmarks.endpoint.instance_xml import OWNER
from benchmarks.endpoint_process import BUCKET, REGION

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = "bench"
JOBS = ("member", "eligibility", "claims", "downstream")
TYPE = "m7i.large"
VCPUS = 2
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Job:
    """One open attempt: its record, and its machine if it has one."""

    record: LaunchRecord
    instance_id: str

    @property
    def name(self) -> str:
        return f"{self.record.jobkey}-a1"

    @property
    def arn(self) -> str:
        return contract.instance_arn(REGION, OWNER, self.instance_id)


def plan_jobs(count: int, *, priorities: tuple[int, ...] = (500,)) -> list[Job]:
    """
    Plan jobs of ``count / 4`` payers.

    The user data is rendered once: it is most of a record's bytes, and only its size matters here.
    """
    now = time.time()
    template = _plan_one(now)
    jobs = []
    for number in range(count):
        payer, job = f"p{number // len(JOBS)}", JOBS[number % len(JOBS)]
        spec = template.spec.model_copy(
            update={"payer": payer, "job": job, "priority": priorities[number % len(priorities)]}
        )
        jobkey, nonce = secrets.token_hex(20), secrets.token_hex(16)
        token = name_client_token(jobkey, 1, 0, nonce)
        record = template.model_copy(
            update={
                "jobkey": jobkey,
                "nonce": nonce,
                "dag_id": f"payer_{payer}",
                "task_id": job,
                "spec": spec,
                "requested_at": now + number / 1_000,
                "placements": (template.placements[0].model_copy(update={"client_token": token}),),
            }
        )
        jobs.append(Job(record, "i-" + secrets.token_hex(9)[:17]))
    return jobs


def _plan_one(now: float) -> LaunchRecord:
    spec = JobSpec(
        payer="p0",
        job="member",
        command=("python3", "member.py"),
        instance_types=(TYPE,),
        ami="ami-0abcdef1234567890",
        subnets=("subnet-0123456789abcdef0",),
        security_groups=("sg-0123456789abcdef0",),
        instance_profile="payer-machine",
        max_runtime="6h",
        region=REGION,
        tags={"CostCenter": "4711"},
    )
    facts = LaunchFacts(
        environment=ENVIRONMENT,
        bucket=BUCKET,
        jobkey="0" * 40,
        attempt=1,
        nonce="0" * 32,
        epoch="e",
        identity=TaskIdentity("payer_p0", "scheduled__2026-03-01", "member"),
        business_date="2026-03-01",
        requested_at=now,
        image_id="ami-0abcdef1234567890",
        image=ImageFacts(architecture="x86_64", root_device="/dev/xvda"),
        instance_types={TYPE: InstanceFacts(vcpus=VCPUS, memory_mib=8_192, architecture="x86_64")},
        code_sha256=None,
        agent=agent_source(),
        table_version="v1",
    )
    return plan_launch(spec, facts)


def entry_of(record: LaunchRecord, limit_vcpus: int | None) -> QueueEntry:
    """Write the queue entry of a record."""
    return plan_entry(record.model_copy(update={"limits": Limits(vcpus=limit_vcpus)}))


def open_objects(jobs: list[Job], limit_vcpus: int | None = None) -> Iterator[dict[str, object]]:
    """
    Lay what a worker writes before it defers: launch record and queue entry.

    :param limit_vcpus: the table's ``limits.vcpus``; a job takes ``VCPUS``
    """
    yield {
        "key": f"{ENVIRONMENT}/environment.json",
        "body": json.dumps({"version": 1, "jobkey_secret": secrets.token_hex(32)}),
    }
    for job in jobs:
        record = job.record
        key = contract.launch_key(ENVIRONMENT, record.jobkey, 1)
        yield {"key": key, "body": record.model_dump_json()}
        entry = entry_of(record, limit_vcpus).model_dump_json()
        yield {"key": f"{ENVIRONMENT}/queue/{job.name}.json", "body": entry}


def running_objects(jobs: list[Job]) -> Iterator[dict[str, object]]:
    """Lay what is there when all of them run: the queue state, start locks, the instances."""
    now = time.time()
    for job in jobs:
        record = job.record
        lock = {"instance_id": job.instance_id, "nonce": record.nonce, "arn": job.arn}
        key = contract.start_lock_key(ENVIRONMENT, record.jobkey, 1, record.nonce)
        yield {"key": key, "body": json.dumps(lock)}
        yield _instance_of(job)
    entries = {
        job.name: EntryState(
            sequence=number,
            stage=Stage.LAUNCHED,
            vcpus=VCPUS,
            admitted_at=now,
            placement=0,
            instance_id=job.instance_id,
            arn=job.arn,
            launched_at=now,
        )
        for number, job in enumerate(jobs, start=1)
    }
    state = QueueState(revision="seeded", next_sequence=len(jobs) + 1, entries=entries)
    yield {"key": f"{ENVIRONMENT}/queue-state.json", "body": state.model_dump_json()}


def dead_objects(jobs: list[Job]) -> Iterator[dict[str, object]]:
    """Lay instances that are dead and still shown, launched in the same minutes as the living."""
    for job in jobs:
        reason = ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown")
        yield _instance_of(job) | {"state": "terminated", "reason": reason}


def _instance_of(job: Job) -> dict[str, object]:
    record = job.record
    return {
        "instance_id": job.instance_id,
        "instance_type": TYPE,
        "subnet": record.placements[0].subnet,
        "token": record.placements[0].client_token,
        "tags": {
            "Name": f"{ENVIRONMENT}/{record.spec.payer}/{record.spec.job}",
            "CostCenter": "4711",
            TAG_ENVIRONMENT: ENVIRONMENT,
            TAG_JOBKEY: record.jobkey,
            TAG_ATTEMPT: "1",
            TAG_PAYER: record.spec.payer,
            TAG_JOB: record.spec.job,
            TAG_MAX_LIFETIME: str(record.spec.max_lifetime_seconds),
        },
    }


def report_of(job: Job) -> dict[str, str]:
    """Write the report of a machine whose job ended well: key -> body, as the agent writes it."""
    record, at = job.record, time.strftime(TIME, time.gmtime())
    config = {"jobkey": record.jobkey, "attempt": 1, "nonce": record.nonce}
    report = empty_report(config, "0" * 64) | {
        "phase": contract.PHASE_JOB,
        "instance_id": job.instance_id,
        "exit_code": 0,
        "wall_seconds": 60.0,
        "cpu_seconds": 55.0,
        "peak_memory_bytes": 1 << 30,
        "lock_at": at,
        "started_at": at,
        "ended_at": at,
    }
    return {contract.report_key(ENVIRONMENT, job.arn): json.dumps(report)}
