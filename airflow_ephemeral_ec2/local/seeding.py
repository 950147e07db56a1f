"""What a user's table names must exist: buckets, roles, profile, subnets, security groups."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from airflow_ephemeral_ec2.local.image_devices import LocalImage

MACHINE_POLICY = "ephemeral-ec2-machine"
_ZONES = "abcdef"


@dataclass(frozen=True)
class Seed:
    """
    One seeding; seeding again adds and never removes.

    ``job_roles`` maps a role name to ``{"bucket": ..., "read": [patterns], "write": [patterns]}``;
    keys of the bucket, with ``*``. ``subnets`` get different availability zones in their order,
    or are a mapping of id to zone. ``file_queues`` maps a queue to the ``bucket/prefix`` whose
    ObjectCreated events it gets. ``images`` maps further AMI ids to ``x86_64`` or ``arm64``, or to
    ``{"architecture": ..., "devices": [...]}`` with block devices beside the root, as EC2 has them.
    """

    region: str = "us-east-1"
    environment: str = "demo"
    state_bucket: str = "ephemeral-ec2-state"
    buckets: tuple[str, ...] = ()
    instance_profile: str = "payer-machine"
    job_roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    subnets: tuple[str, ...] | Mapping[str, str] = ("subnet-0a1", "subnet-0b2")
    security_groups: tuple[str, ...] = ("sg-0c3",)
    file_queues: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)


def parse_seed(body: object) -> Seed:
    """
    Read a seed from JSON.

    :raises ValueError: not a seed; says what is wrong and what is allowed.
    """
    if not isinstance(body, Mapping):
        msg = "a seed is a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for all of the user's mistakes
    known = {one.name for one in fields(Seed)}
    unknown = sorted(set(body) - known)
    if unknown:
        msg = f"unknown: {', '.join(unknown)}; allowed: {', '.join(sorted(known))}"
        raise ValueError(msg)
    for name, role in dict(body.get("job_roles", {})).items():
        extra = sorted(set(role) - {"bucket", "read", "write", "secrets", "parameters"})
        if extra:
            msg = f"job_roles.{name}: unknown: {', '.join(extra)}"
            raise ValueError(msg)
    for image_id, image in dict(body.get("images", {})).items():
        if not isinstance(image, str) and set(image) - {"devices"} != {"architecture"}:
            msg = f"images.{image_id}: x86_64 or arm64, or architecture and devices"
            raise ValueError(msg)
    given: dict[str, Any] = dict(body)
    for name, value in given.items():
        given[name] = tuple(value) if isinstance(value, list) else value
    return Seed(**given)


def seed(wanted: Seed, account: str) -> None:
    """Make everything exist with exactly the asked ids and names; what exists stays."""
    for bucket in _buckets(wanted):
        _seed_bucket(bucket, wanted.region, account)
    _seed_machine_role(wanted, account)
    for name, grants in wanted.job_roles.items():
        _seed_job_role(name, grants, wanted, account)
    _seed_file_queues(wanted, account)
    _seed_network(wanted, account)
    _seed_images(wanted, account)


def machine_policy(bucket: str, environment: str, account: str) -> dict[str, object]:
    """Return what a machine may do: write below its own ARN, take start locks, read code."""
    base = f"arn:aws:s3:::{bucket}/{environment}"
    locks = f"{base}/jobs/*/start-lock-*.json"
    once = {"StringEquals": {"s3:if-none-match": "*"}}
    return _document(
        _allow("s3:PutObject", f"{base}/machines/${{ec2:SourceInstanceARN}}/*")
        | {"Condition": once},
        _allow("s3:GetObject", f"{base}/machines/${{ec2:SourceInstanceARN}}/*"),
        _allow("s3:PutObject", locks) | {"Condition": once},
        _allow("s3:GetObject", locks, f"{base}/code/*"),
        _allow("sts:AssumeRole", f"arn:aws:iam::{account}:role/*"),
    )


def _buckets(wanted: Seed) -> Iterable[str]:
    of_roles = (role["bucket"] for role in wanted.job_roles.values() if "bucket" in role)
    of_files = (place.partition("/")[0] for place in wanted.file_queues.values())
    return dict.fromkeys((wanted.state_bucket, *wanted.buckets, *of_roles, *of_files))


def _seed_bucket(name: str, region: str, account: str) -> None:
    backend = s3_backends[account]["aws"]
    if name not in backend.buckets:
        backend.create_bucket(name, region)


def _seed_file_queues(wanted: Seed, account: str) -> None:
    """Make queues, and tell S3 of them; a bucket's notifications are one document."""
    queues, backend = sqs_backends[account][wanted.region], s3_backends[account]["aws"]
    by_bucket: dict[str, dict[str, dict[str, Any]]] = {}
    for name, place in wanted.file_queues.items():
        bucket, _, prefix = place.partition("/")
        if name not in queues.queues:
            queues.create_queue(name)
        rule = {"Name": "prefix", "Value": prefix}
        told = {
            "Id": name,
            "Queue": f"arn:aws:sqs:{wanted.region}:{account}:{name}",
            "Event": ["s3:ObjectCreated:*"],
            "Filter": {"S3Key": {"FilterRule": [rule]}},
        }
        by_bucket.setdefault(bucket, {})[name] = told
    for bucket, rules in by_bucket.items():
        known = backend.buckets[bucket].notification_configuration
        for one in known.queue if known else ():
            before = {"Id": one.id, "Queue": one.arn, "Event": one.events, "Filter": one.filters}
            rules.setdefault(one.id, before)
        document = {"QueueConfiguration": list(rules.values())}
        backend.put_bucket_notification_configuration(bucket, document)


def _seed_role(name: str, account: str, trusted: Mapping[str, object]) -> None:
    backend = iam_backends[account]["aws"]
    if any(role.name == name for role in backend.get_roles()):
        return
    trust = _document({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": trusted})
    backend.create_role(name, json.dumps(trust), "/", None, "seeded", [], "3600")


def _seed_machine_role(wanted: Seed, account: str) -> None:
    backend = iam_backends[account]["aws"]
    name = wanted.instance_profile
    _seed_role(name, account, {"Service": "ec2.amazonaws.com"})
    policy = machine_policy(wanted.state_bucket, wanted.environment, account)
    backend.get_role(name).put_policy(f"{MACHINE_POLICY}-{wanted.environment}", json.dumps(policy))
    if not any(profile.name == name for profile in backend.get_instance_profiles()):
        backend.create_instance_profile(name, "/", [name])


def _seed_job_role(name: str, grants: Mapping[str, Any], wanted: Seed, account: str) -> None:
    machine = f"arn:aws:iam::{account}:role/{wanted.instance_profile}"
    _seed_role(name, account, {"AWS": machine})
    bucket = f"arn:aws:s3:::{grants.get('bucket', wanted.state_bucket)}"
    read, write = list(grants.get("read", ())), list(grants.get("write", ()))
    statements = [
        _allow("s3:GetObject", *(f"{bucket}/{pattern}" for pattern in read)),
        _allow(["s3:PutObject", "s3:DeleteObject"], *(f"{bucket}/{p}" for p in write)),
        _allow("s3:ListBucket", bucket)
        | {"Condition": {"StringLike": {"s3:prefix": [*read, *write]}}},
        _allow(
            "secretsmanager:GetSecretValue",
            *(
                f"arn:aws:secretsmanager:*:{account}:secret:{n}-*"
                for n in grants.get("secrets", ())
            ),
        ),
        _allow(
            "ssm:GetParameter",
            *(
                f"arn:aws:ssm:*:{account}:parameter/{n.lstrip('/')}"
                for n in grants.get("parameters", ())
            ),
        ),
    ]
    document = _document(*(one for one in statements if one["Resource"]))
    iam_backends[account]["aws"].get_role(name).put_policy("data", json.dumps(document))


def _seed_network(wanted: Seed, account: str) -> None:
    backend = ec2_backends[account][wanted.region]
    existing = {subnet.id for subnet in backend.describe_subnets()}
    zones = wanted.subnets if isinstance(wanted.subnets, Mapping) else {}
    for subnet_id in wanted.subnets:
        if subnet_id not in existing:
            number = len(existing)
            zone = zones.get(subnet_id) or f"{wanted.region}{_ZONES[number % 3]}"
            _seed_subnet(backend, subnet_id, zone, number)
            existing.add(subnet_id)
    for group_id in wanted.security_groups:
        if backend.get_security_group_from_id(group_id) is None:
            made = backend.create_security_group(f"seeded-{group_id}", "seeded")
            groups = backend.groups[str(made.vpc_id)]
            groups[group_id] = groups.pop(made.id)
            made.id = made.group_id = group_id


def _seed_subnet(backend: Any, subnet_id: str, zone: str, number: int) -> None:  # noqa: ANN401
    made = backend.create_subnet(
        backend.default_vpc.id, f"172.31.{96 + 4 * (number % 40)}.0/22", availability_zone=zone
    )
    backend.subnets[zone].pop(made.id)
    for association in backend.network_acls.values():
        if made.id in association.associations:
            association.associations[subnet_id] = association.associations.pop(made.id)
    made.id = subnet_id
    made.map_public_ip_on_launch = False
    backend.subnets[zone][subnet_id] = made


def _seed_images(wanted: Seed, account: str) -> None:
    backend = ec2_backends[account][wanted.region]
    for image_id, given in wanted.images.items():
        facts: Mapping[str, Any] = {"architecture": given} if isinstance(given, str) else given
        backend.amis[image_id] = LocalImage(
            backend,
            image_id,
            name=f"seeded-{image_id}",
            architecture=facts["architecture"],
            devices=facts.get("devices", ()),
            public=True,
            virtualization_type="hvm",
            root_device_name="/dev/xvda",
            root_device_type="ebs",
            creation_date=datetime.now(UTC),
        )


def _allow(action: str | list[str], *resources: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": action, "Resource": list(resources)}


def _document(*statements: Mapping[str, object]) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
