"""A job and its facts -> the one frozen launch record, and its entry in the queue."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from airflow_ephemeral_ec2.contract import CONTRACT_VERSION
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.duration import compact_duration
from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_client_token
from airflow_ephemeral_ec2.model.queue import QueueEntry
from airflow_ephemeral_ec2.model.quota import quota_family
from airflow_ephemeral_ec2.model.spec import (
    CapacityType,
    ImageFacts,
    InstanceFacts,
    JobSpec,
    Limits,
    Spec,
)
from airflow_ephemeral_ec2.model.user_data import check_size, render_user_data

NO_LIMITS = Limits()
TAG_ENVIRONMENT = "ephemeral-ec2:environment"
TAG_JOBKEY = "ephemeral-ec2:jobkey"
TAG_ATTEMPT = "ephemeral-ec2:attempt"
TAG_PAYER = "ephemeral-ec2:payer"
TAG_JOB = "ephemeral-ec2:job"
TAG_MAX_LIFETIME = "ephemeral-ec2:max-lifetime-seconds"


class Placement(Spec):
    """Where one machine may be launched: instance type x subnet x capacity type."""

    instance_type: str
    subnet: str
    capacity_type: Literal["on-demand", "spot"]
    vcpus: int
    memory_mib: int
    client_token: str

    def __str__(self) -> str:
        return f"{self.instance_type} {self.capacity_type} {self.subnet}"


class LaunchRecord(Spec):
    """The frozen request of one attempt, as the bucket keeps it."""

    version: Literal[1] = 1
    environment: str
    bucket: str
    jobkey: str
    attempt: int
    nonce: str
    """128 random bits, 32 hex digits."""
    epoch: str
    supersedes: int | None = None
    """The attempt that must have an outcome before this one may be launched."""
    requested_at: float
    """Seconds since 1970, by the bucket's clock."""
    run_key: str = ""
    """Names the DAG run without telling its id."""
    dag_id: str
    task_id: str
    map_index: int
    array_index: int
    business_date: str
    may_retry: bool
    """Whether Airflow would try the task again; a launch that nobody awaits is not retried."""
    is_awaited: bool = True
    """False when the task does not wait for the end (``wait_for_completion=False``)."""
    is_backfill: bool = False
    """Whether Airflow runs it for a backfill; reprocessed runs included."""
    priority_reason: str = ""
    """Why a person gave this run another priority than the table's; empty: nobody did."""
    order_override: str = ""
    """Why a person let this run start without the successes of what it depends on."""
    spec: JobSpec
    account: str = ""
    """AWS account of the connection; empty where STS could not be asked."""
    table: str = ""
    """Name of the table's file."""
    table_version: str
    limits: Limits = Limits()
    """Those of this version of the table."""
    dependents: tuple[str, ...] = ()
    """Jobs of the payer that read, directly or not, what this one writes."""
    image_id: str
    root_device: str
    data_devices: tuple[str, ...] = ()
    """Devices of the AMI's further EBS volumes; they end with the machine, as its root does."""
    code_sha256: str | None
    placements: tuple[Placement, ...]
    user_data: str
    """Base64 of the bytes that EC2 gets."""
    user_data_sha256: str

    @property
    def title(self) -> str:
        """``acme/claims 2026-03-01, attempt 1``."""
        part = f"[{self.array_index}]" if self.spec.array_size > 1 else ""
        return (
            f"{self.spec.payer}/{self.spec.job}{part} {self.business_date}, attempt {self.attempt}"
        )

    def announce(self, is_adopted: bool) -> list[str]:
        """Say in the task log what was asked for."""
        spec = self.spec
        first = self.placements[0]
        lines = [
            (
                f"{self.title}: {first.instance_type} {first.capacity_type}, at most "
                f"{compact_duration(spec.max_runtime)} + {compact_duration(spec.boot_timeout)} boot"
            )
        ]
        if is_adopted:
            lines.append("this attempt is open already: waiting for it, not launching another")
        if self.priority_reason:
            lines.append(f"priority {spec.priority} for this run: {self.priority_reason}")
        if self.order_override:
            lines.append(f"order is not waited for in this run: {self.order_override}")
        if self.code_sha256:
            lines.append(f"code: sha256 {self.code_sha256[:12]}...")
        return lines

    def offering(self, placement_index: int) -> str:
        """Name what EC2 has capacity for or not, the same for all jobs."""
        spec, placement = self.spec, self.placements[placement_index]
        kind = f"{placement.instance_type}/{placement.subnet}/{placement.capacity_type}"
        return f"{spec.aws_conn_id}/{spec.region}/{kind}"

    def quota(self, placement_index: int) -> str:
        """Name the limit of the account that a placement counts against, the same for all jobs."""
        spec, placement = self.spec, self.placements[placement_index]
        family = quota_family(placement.instance_type)
        return f"{spec.aws_conn_id}/{spec.region}/quota/{family}/{placement.capacity_type}"

    @property
    def vcpus(self) -> int:
        """The most that any placement takes: what admission reserves."""
        return max(placement.vcpus for placement in self.placements)


@dataclass(frozen=True)
class LaunchFacts:
    """What is known when an attempt is opened, beside the row itself."""

    environment: str
    bucket: str
    jobkey: str
    attempt: int
    nonce: str
    epoch: str
    identity: TaskIdentity
    business_date: str
    requested_at: float
    image_id: str
    image: ImageFacts
    instance_types: Mapping[str, InstanceFacts]
    code_sha256: str | None
    agent: str
    """Source of the agent."""
    table_version: str
    table: str = ""
    account: str = ""
    limits: Limits = NO_LIMITS
    dependents: tuple[str, ...] = ()
    run_key: str = ""
    array_index: int = 0
    supersedes: int | None = None
    may_retry: bool = False
    is_awaited: bool = True
    is_backfill: bool = False
    priority_reason: str = ""
    order_override: str = ""


def plan_launch(spec: JobSpec, facts: LaunchFacts) -> LaunchRecord:
    """
    Freeze the launch of one attempt: same row and facts, same bytes.

    :raises ConfigurationError: AMI and instance type differ in architecture, or user data is over
        EC2's limit.
    """
    _check_architectures(spec, facts)
    user_data = render_user_data(_agent_config(spec, facts), agent=facts.agent)
    check_size(user_data, job=f"{spec.payer}/{spec.job}")
    return LaunchRecord(
        environment=facts.environment,
        bucket=facts.bucket,
        jobkey=facts.jobkey,
        attempt=facts.attempt,
        nonce=facts.nonce,
        epoch=facts.epoch,
        supersedes=facts.supersedes,
        requested_at=facts.requested_at,
        run_key=facts.run_key,
        dag_id=facts.identity.dag_id,
        task_id=facts.identity.task_id,
        map_index=facts.identity.map_index,
        array_index=facts.array_index,
        business_date=facts.business_date,
        may_retry=facts.may_retry,
        is_awaited=facts.is_awaited,
        is_backfill=facts.is_backfill,
        priority_reason=facts.priority_reason,
        order_override=facts.order_override,
        spec=spec,
        account=facts.account,
        table=facts.table,
        table_version=facts.table_version,
        limits=facts.limits,
        dependents=facts.dependents,
        image_id=facts.image_id,
        root_device=facts.image.root_device,
        data_devices=facts.image.data_devices or (),
        code_sha256=facts.code_sha256,
        placements=plan_placements(spec, facts),
        user_data=base64.b64encode(user_data).decode(),
        user_data_sha256=hashlib.sha256(user_data).hexdigest(),
    )


def plan_placements(spec: JobSpec, facts: LaunchFacts) -> tuple[Placement, ...]:
    """Order the placements: capacity type, then instance type, then subnet, best first."""
    markets: tuple[Literal["on-demand", "spot"], ...]
    match spec.capacity_type:
        case CapacityType.ON_DEMAND:
            markets = ("on-demand",)
        case CapacityType.SPOT:
            markets = ("spot",)
        case CapacityType.SPOT_THEN_ON_DEMAND:
            markets = ("spot", "on-demand")
    wanted = [
        (market, instance_type, subnet)
        for market in markets
        for instance_type in spec.instance_types
        for subnet in spec.subnets
    ]
    return tuple(
        Placement(
            instance_type=instance_type,
            subnet=subnet,
            capacity_type=market,
            vcpus=facts.instance_types[instance_type].vcpus,
            memory_mib=facts.instance_types[instance_type].memory_mib,
            client_token=name_client_token(facts.jobkey, facts.attempt, index, facts.nonce),
        )
        for index, (market, instance_type, subnet) in enumerate(wanted)
    )


def plan_entry(record: LaunchRecord) -> QueueEntry:
    """Write what admission needs to know about an attempt."""
    spec = record.spec
    is_last = record.is_backfill and spec.backfill_order == "below_today"
    return QueueEntry(
        jobkey=record.jobkey,
        attempt=record.attempt,
        nonce=record.nonce,
        run_key=record.run_key,
        dag_id=record.dag_id,
        payer=spec.payer,
        job=spec.job,
        aws_conn_id=spec.aws_conn_id,
        region=spec.region,
        business_date=record.business_date,
        priority=spec.priority,
        vcpus=record.vcpus,
        is_awaited=record.is_awaited,
        account=record.account,
        priority_reason=record.priority_reason,
        is_backfill=is_last,
        capacity_type=spec.capacity_type,
        cross_run_order=spec.cross_run_order,
        depends_on=spec.depends_on if spec.cross_run_order else (),
        dependents=record.dependents,
        order_override=record.order_override,
        in_order_by_date=spec.in_order_by_date,
        array_index=record.array_index,
        array_size=spec.array_size,
        max_runtime=spec.max_runtime,
        boot_timeout=spec.boot_timeout,
        stop_grace=spec.stop_grace,
        max_wait=spec.max_wait,
        requested_at=record.requested_at,
        supersedes=record.supersedes,
        limits=record.limits,
        table=record.table,
        table_version=record.table_version,
        title=record.title,
    )


def _agent_config(spec: JobSpec, facts: LaunchFacts) -> dict[str, object]:
    return {
        "v": CONTRACT_VERSION,
        "env": facts.environment,
        "bucket": facts.bucket,
        "region": spec.region,
        "jobkey": facts.jobkey,
        "attempt": facts.attempt,
        "nonce": facts.nonce,
        "payer": spec.payer,
        "job": spec.job,
        "date": facts.business_date,
        "array_index": facts.array_index,
        "array_size": spec.array_size,
        "command": list(spec.command),
        "pre_command": list(spec.pre_command),
        "environ": dict(spec.env),
        "secrets": dict(spec.secrets),
        "code": facts.code_sha256,
        "job_role": spec.job_role,
        "max_runtime": spec.max_runtime,
        "boot_timeout": spec.boot_timeout,
        "stop_grace": spec.stop_grace,
        "max_lifetime": spec.max_lifetime_seconds,
        "log_limit": spec.log_limit_mib * 1024 * 1024,
        "volume_bytes": spec.volume_gib * 1024**3,
    }


def _check_architectures(spec: JobSpec, facts: LaunchFacts) -> None:
    for name in spec.instance_types:
        found = facts.instance_types[name].architecture
        if found != facts.image.architecture:
            msg = (
                f"{spec.payer}/{spec.job}: instance type {name} is {found}, "
                f"AMI {spec.ami} is {facts.image.architecture}. Choose one architecture."
            )
            raise ConfigurationError(msg)
