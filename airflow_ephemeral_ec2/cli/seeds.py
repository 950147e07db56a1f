"""What a table names -> what must exist in a local EC2 for its jobs to run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from airflow_ephemeral_ec2.config_table.instance_types import (
    find_architecture,
    find_image_architecture,
)
from airflow_ephemeral_ec2.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_ephemeral_ec2.model.spec import JobSpec, LockFile

DATA_BUCKET = "DATA_BUCKET"
"""Environment variable of a row that names the bucket its job reads and writes."""
LOCAL_AMI = "ami-local"
_S3 = "s3://"


def localize(spec: JobSpec) -> JobSpec:
    """
    Make a row fit the local EC2: its account has names, not the ARNs of another account.

    One job is run, so what it depends on is not waited for.
    """
    changes: dict[str, object] = {
        "instance_profile": _name(spec.instance_profile),
        "job_role": _name(spec.job_role) if spec.job_role else None,
        "kms_key": None,
        "depends_on": (),
    }
    return spec.model_copy(update=changes)


def find_data_bucket(spec: JobSpec) -> str | None:
    return spec.env.get(DATA_BUCKET)


def plan_seeds(
    specs: Iterable[JobSpec],
    lock: LockFile,
    *,
    environment: str,
    bucket: str,
    data_bucket: str | None = None,
) -> list[dict[str, object]]:
    """
    Name all that the rows need: one seed per region and instance profile.

    A job role may read ``incoming/<payer>/`` and ``payers/<payer>/`` of the row's data bucket,
    write the second, and read the row's secrets.

    :param data_bucket: for rows that name none by ``DATA_BUCKET``
    """
    rows = [localize(spec) for spec in specs]
    roles = _plan_roles(rows, data_bucket)
    by_place: dict[tuple[str, str], list[JobSpec]] = defaultdict(list)
    for spec in rows:
        by_place[spec.region, spec.instance_profile].append(spec)
    return [
        {
            "region": region,
            "environment": environment,
            "state_bucket": bucket,
            "buckets": sorted({name for spec in group for name in _buckets(spec, data_bucket)}),
            "instance_profile": profile,
            "job_roles": {s.job_role: roles[s.job_role] for s in group if s.job_role},
            "subnets": list(dict.fromkeys(name for spec in group for name in spec.subnets)),
            "security_groups": sorted({n for spec in group for n in spec.security_groups}),
            "images": {_image_id(spec): _architecture(spec, lock) for spec in group},
        }
        for (region, profile), group in by_place.items()
    ]


def _plan_roles(rows: list[JobSpec], data_bucket: str | None) -> dict[str, dict[str, Any]]:
    roles: dict[str, dict[str, Any]] = {}
    for spec in rows:
        if spec.job_role is None:
            continue
        role = roles.setdefault(
            spec.job_role, {"read": [], "write": [], "secrets": [], "parameters": []}
        )
        data = find_data_bucket(spec) or data_bucket
        own = f"payers/{spec.payer}/*"
        wanted = {"read": [f"incoming/{spec.payer}/*", own], "write": [own]} if data else {}
        if data:
            role["bucket"] = data
        wanted |= _secret_names(spec)
        for kind, names in wanted.items():
            role[kind] += [name for name in names if name not in role[kind]]
    return roles


def _secret_names(spec: JobSpec) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {"secrets": [], "parameters": []}
    for reference in spec.secrets.values():
        service, _, name = reference.partition(":")
        names["secrets" if service == "secretsmanager" else "parameters"].append(name)
    return names


def _buckets(spec: JobSpec, data_bucket: str | None) -> set[str]:
    """Find the buckets that the environment of a row names."""
    named = {
        value.removeprefix(_S3).partition("/")[0]
        for value in spec.env.values()
        if value.startswith(_S3)
    }
    named.add(find_data_bucket(spec) or data_bucket or "")
    return {name for name in named if name}


def _image_id(spec: JobSpec) -> str:
    return LOCAL_AMI if spec.ami.startswith("ssm:") else spec.ami


def _architecture(spec: JobSpec, lock: LockFile) -> str:
    known = find_image_architecture(spec.ami, lock)
    return known or find_architecture(spec.instance_types[0], lock) or "x86_64"


def _name(name_or_arn: str) -> str:
    return name_or_arn.rsplit("/", 1)[-1]


def find_secret_values(spec: JobSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """
    Take a local run's secrets from the caller's environment, by the variables of the row.

    :raises ConfigurationError: names all that are not set
    """
    missing = sorted(name for name in spec.secrets if name not in environ)
    if missing:
        msg = (
            f"{spec.payer}/{spec.job} has secrets; a local run takes them from your environment. "
            f"Set: {', '.join(missing)}"
        )
        raise ConfigurationError(msg)
    return {reference: environ[name] for name, reference in spec.secrets.items()}
