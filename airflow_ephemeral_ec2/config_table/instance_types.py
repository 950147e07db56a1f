"""What the name of an instance type or AMI tells; the lock file knows better where it has them."""

import re
from typing import Literal

from airflow_ephemeral_ec2.model.spec import LockFile

Architecture = Literal["x86_64", "arm64"]

_FAMILY = re.compile(r"(?P<series>[a-z]+)(?P<generation>\d+)(?P<options>[a-z]*)(?P<rest>-.*)?")
_AMI_WORD = re.compile(r"(?<![a-z0-9])(x86_64|amd64|arm64|aarch64)(?![a-z0-9])")
_ONE_THREAD_PER_CORE = ("hpc",)
_BURSTABLE = ("t3", "t3a", "t4g")
_FIRST_REGULAR_GENERATION = 5
"""Older families break the rule below (c4.8xlarge has 36 vCPUs, m2.xlarge 2)."""


def find_architecture(instance_type: str, lock: LockFile) -> Architecture | None:
    """
    Name the architecture of an instance type; None where unknown.

    Amazon's naming convention: a ``g`` among the letters after the generation means Graviton
    (EC2 user guide, "Amazon EC2 instance type naming conventions"). a1 was the first of them,
    ``-gb`` families have a Grace processor. Macs are left out.
    """
    known = lock.instance_types.get(instance_type)
    if known:
        return known.architecture
    family = instance_type.partition(".")[0]
    match = _FAMILY.fullmatch(family)
    if match is None or family.startswith("mac"):
        return None
    if family == "a1" or "g" in match["options"] or (match["rest"] or "").startswith("-gb"):
        return "arm64"
    return "x86_64"


def find_image_architecture(ami: str, lock: LockFile) -> Architecture | None:
    """Name the architecture of an AMI by the lock file or its SSM path; None where unknown."""
    known = lock.images.get(ami)
    if known:
        return known.architecture
    words = _AMI_WORD.findall(ami) if ami.startswith("ssm:") else []
    if not words:
        return None
    return "x86_64" if words[-1] in ("x86_64", "amd64") else "arm64"


def find_vcpus(instance_type: str, lock: LockFile) -> int | None:
    """
    Count the vCPUs of an instance type; None where the name does not tell.

    Since generation 5 an xlarge has 4 and an Nxlarge 4N (EC2 instance types guide), with one
    thread per core in the hpc families and the table's own number for metal.
    """
    known = lock.instance_types.get(instance_type)
    if known:
        return known.vcpus
    family, _, size = instance_type.partition(".")
    match = _FAMILY.fullmatch(family)
    if match is None or match["series"] in _ONE_THREAD_PER_CORE:
        return None
    if int(match["generation"]) < _FIRST_REGULAR_GENERATION and family not in _BURSTABLE:
        return None
    return _count_by_size(size, burstable=family in _BURSTABLE)


def _count_by_size(size: str, *, burstable: bool) -> int | None:
    match size:
        case "nano" | "micro" | "small":
            return 2 if burstable else None
        case "medium":
            return 2 if burstable else 1
        case "large":
            return 2
        case "xlarge":
            return 4
        case _:
            count = re.fullmatch(r"(\d+)xlarge", size)
            return 4 * int(count[1]) if count else None
