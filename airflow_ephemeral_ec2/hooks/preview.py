"""A launch as far as it is known before anything is asked: facts of the lock file or the names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.config_table.instance_types import (
    find_image_architecture,
    find_vcpus,
)
from airflow_ephemeral_ec2.exceptions import Problem, UserDataTooLargeError
from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.plan import LaunchFacts, LaunchRecord, plan_launch
from airflow_ephemeral_ec2.model.plan_text import MADE_AT_LAUNCH
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts
from airflow_ephemeral_ec2.model.user_data import USER_DATA_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_ephemeral_ec2.config_table import ConfigTable
    from airflow_ephemeral_ec2.model.spec import JobSpec, LockFile

USUAL_ROOT_DEVICE = "/dev/xvda"
AGENT_ROOM = 12_500
"""Bytes of user data that agent and boothook take at most; a test holds them to it."""
FIXED_CONFIG = 900
"""Bytes of the agent's config that do not come from the row, generously."""


@dataclass(frozen=True)
class Preview:
    """A launch record with placeholders, and what they stand for."""

    record: LaunchRecord
    placeholders: tuple[str, ...]


def placeholder(name: str, digits: int) -> str:
    """Hex digits that look random, so that they compress as badly as the real ones will."""
    return hashlib.sha256(f"placeholder {name}".encode()).hexdigest()[:digits]


def preview_launch(
    spec: JobSpec,
    lock: LockFile,
    *,
    environment: str,
    bucket: str,
    business_date: str,
    code_sha256: str | None,
    table_version: str,
    array_index: int = 0,
) -> Preview:
    """
    Plan a launch without asking AWS.

    :raises UserDataTooLargeError: more than EC2 takes
    """
    # Loaded late: assembling the agent takes longer than reading a table.
    from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source  # noqa: PLC0415

    unknown = list(MADE_AT_LAUNCH)
    image = _preview_image(spec, lock, unknown)
    facts = LaunchFacts(
        environment=environment,
        bucket=bucket,
        jobkey=placeholder("jobkey", 40),
        attempt=1,
        nonce=placeholder("nonce", 32),
        epoch="preview",
        identity=TaskIdentity(f"payer_{spec.payer}", "preview", spec.job),
        business_date=business_date,
        requested_at=0.0,
        image_id=_preview_image_id(spec, unknown),
        image=image,
        instance_types=_preview_types(spec, lock, image, unknown),
        code_sha256=code_sha256,
        agent=agent_source(),
        table_version=table_version,
        array_index=array_index,
    )
    return Preview(plan_launch(spec, facts), tuple(unknown))


def _preview_image(spec: JobSpec, lock: LockFile, unknown: list[str]) -> ImageFacts:
    known = lock.images.get(spec.ami)
    if known:
        if known.data_devices is None:
            unknown.append("further volumes of the AMI (push looks them up)")
        return known
    unknown.append(f"root device ({USUAL_ROOT_DEVICE} assumed; push looks it up)")
    architecture = find_image_architecture(spec.ami, lock) or "x86_64"
    return ImageFacts(architecture=architecture, root_device=USUAL_ROOT_DEVICE)


def _preview_image_id(spec: JobSpec, unknown: list[str]) -> str:
    if not spec.ami.startswith("ssm:"):
        return spec.ami
    unknown.append("AMI id (looked up at launch)")
    return "ami-" + "0" * 17


def _preview_types(
    spec: JobSpec, lock: LockFile, image: ImageFacts, unknown: list[str]
) -> dict[str, InstanceFacts]:
    """Architectures that differ were refused with the table; here all are the image's."""
    found = {}
    for name in spec.instance_types:
        vcpus = find_vcpus(name, lock)
        if vcpus is None:
            unknown.append(f"vCPUs of {name} (1 assumed; push looks them up)")
        found[name] = InstanceFacts(vcpus=vcpus or 1, memory_mib=1, architecture=image.architecture)
    return found


def check_user_data(table: ConfigTable) -> Iterator[Problem]:
    """
    Find rows whose user data EC2 would refuse, for ``load_table(extra_checks=...)``.

    Names of the deployment are taken at their longest. Most rows are so small that they fit
    whatever the compression does; only the others are rendered.
    """
    for (payer, job), row in table.rows.items():
        spec = row.spec
        if _surely_fits(spec):
            continue
        try:
            _preview_at_its_largest(spec, table)
        except UserDataTooLargeError as error:
            message = (
                f"user data would be {error.size:,} bytes, EC2 takes {USER_DATA_LIMIT:,}; "
                "shorten command and env, or move them into the code folder"
            )
            largest = max(
                ("command", "env", "pre_command"), key=lambda name: len(str(getattr(spec, name)))
            )
            yield table.problem(payer, job, largest, message)


def _surely_fits(spec: JobSpec) -> bool:
    """Deflate never grows its input by more than a few bytes, and base64 by a third."""
    config = len(spec.model_dump_json().encode()) + FIXED_CONFIG
    return AGENT_ROOM + config * 4 // 3 + 100 <= USER_DATA_LIMIT


def _preview_at_its_largest(spec: JobSpec, table: ConfigTable) -> None:
    preview_launch(
        spec,
        table.lock,
        environment=placeholder("environment", 40),
        bucket=placeholder("bucket", 63),
        business_date="2026-03-01",
        code_sha256=placeholder("code", 64) if spec.code else None,
        table_version=table.sha256,
        array_index=spec.array_size - 1,
    )


def code_folder(table_path: str, spec: JobSpec) -> Path | None:
    """Where the row's code lies on this machine."""
    return None if spec.code is None else Path(table_path).parent / spec.code
