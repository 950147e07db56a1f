"""DescribeInstances filters: more of them than moto has, wildcards, and an error for the rest."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from moto.ec2.exceptions import EC2ClientError

Values = list[str]
_Reader = Callable[[Any], object]


def _path(name: str) -> _Reader:
    def read(instance: Any) -> object:  # noqa: ANN401 - moto is not typed
        value: Any = instance
        for part in name.split("."):
            value = getattr(value, part, None)
        return value

    return read


def _groups(part: str) -> _Reader:
    return lambda instance: [getattr(group, part) for group in instance.security_groups]


def _volumes(instance: Any) -> list[str]:  # noqa: ANN401 - moto is not typed
    return [volume.volume_id for _, volume in instance.get_block_device_mapping]


_READERS: dict[str, _Reader] = {
    "architecture": _path("architecture"),
    "availability-zone": _path("placement.zone"),
    "block-device-mapping.volume-id": _volumes,
    "client-token": _path("client_token"),
    "dns-name": _path("public_dns_name"),
    "group-id": _groups("id"),
    "group-name": _groups("name"),
    "iam-instance-profile.arn": _path("profile_arn"),
    "image-id": _path("image_id"),
    "instance-id": _path("id"),
    "instance-lifecycle": _path("lifecycle"),
    "instance-state-code": lambda instance: str(instance.state_code),
    "instance-state-name": _path("state"),
    "instance-type": _path("instance_type"),
    "instance.group-id": _groups("id"),
    "instance.group-name": _groups("name"),
    "ip-address": _path("public_ip"),
    "key-name": _path("key_name"),
    "launch-time": lambda one: one.launch_time.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "metadata-options.http-endpoint": _path("metadata_options.http_endpoint"),
    "metadata-options.http-tokens": _path("metadata_options.http_tokens"),
    "owner-id": _path("owner_id"),
    "private-dns-name": _path("private_dns_name"),
    "private-ip-address": _path("private_ip"),
    "reason": _path("state_transition_reason"),
    "root-device-name": _path("root_device_name"),
    "root-device-type": _path("root_device_type"),
    "source-dest-check": lambda one: str(one.source_dest_check).lower(),
    "state-reason-code": _path("state_reason.code"),
    "subnet-id": _path("subnet_id"),
    "virtualization-type": _path("virtualization_type"),
    "vpc-id": _path("vpc_id"),
}


def passes_filters(instance: Any, filters: Mapping[str, Values]) -> bool:  # noqa: ANN401
    """
    Apply all filters of a request to one instance; several values of one filter are "or".

    :raises EC2ClientError: a filter that EC2 (or this local one) does not know.
    """
    check_filters(filters)
    return all(_passes(instance, name, values) for name, values in filters.items())


def check_filters(filters: Mapping[str, Values]) -> None:
    """
    Refuse unknown filter names, as EC2 does.

    :raises EC2ClientError: ``InvalidParameterValue``.
    """
    for name in filters:
        if name in _READERS or name == "tag-key" or name.startswith("tag:"):
            continue
        near = get_close_matches(name, _READERS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        code = "InvalidParameterValue"
        raise EC2ClientError(code, f"The filter '{name}' is invalid.{hint}")


def _passes(instance: Any, name: str, values: Values) -> bool:  # noqa: ANN401
    tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
    if name == "tag-key":
        actual: list[object] = list(tags)
    elif name.startswith("tag:"):
        key = name.removeprefix("tag:")
        actual = [tags[key]] if key in tags else []
    else:
        found = _READERS[name](instance)
        actual = found if isinstance(found, list) else [found]
    return any(_equal(one, value) for one in actual if one is not None for value in values)


def _equal(actual: object, wanted: str) -> bool:
    return fnmatchcase(str(actual), wanted.replace("[", "[[]"))


_STATUS_READERS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "availability-zone": lambda one: one["AvailabilityZone"],
    "instance-state-name": lambda one: one["InstanceState"]["Name"],
    "instance-status.status": lambda one: one["InstanceStatus"]["Status"],
    "system-status.status": lambda one: one["SystemStatus"]["Status"],
}


def passes_status_filters(status: Mapping[str, Any], filters: Mapping[str, Values]) -> bool:
    """
    Apply all filters of DescribeInstanceStatus to one status.

    :raises EC2ClientError: a filter that this local EC2 does not know.
    """
    for name, values in filters.items():
        if name not in _STATUS_READERS:
            code = "InvalidParameterValue"
            raise EC2ClientError(code, f"The filter '{name}' is invalid.")
        if not any(_equal(_STATUS_READERS[name](status), value) for value in values):
            return False
    return True
