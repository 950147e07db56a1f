"""What may stand in a rule: each value is checked when it is written, not when it hits."""

import math
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

_OTHER_NAMES = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListBuckets": "ListAllMyBuckets",
    "DeleteObjects": "DeleteObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListObjectVersions": "ListBucketVersions",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
}
"""S3's requests have the names of their permissions here, as in IAM and the API log."""
_KNOWN_ACTIONS = (
    "RunInstances", "TerminateInstances", "StopInstances", "StartInstances", "RebootInstances",
    "DescribeInstances", "DescribeInstanceStatus", "DescribeInstanceTypes", "DescribeImages",
    "DescribeInstanceTypeOfferings", "DescribeSubnets", "DescribeVolumes", "DeleteVolume",
    "DescribeNetworkInterfaces", "DeleteNetworkInterface", "GetConsoleOutput", "CreateTags",
    "DeleteTags", "ModifyInstanceAttribute", "DescribeInstanceAttribute", "DescribeTags",
    "DescribeSecurityGroups", "DescribeVpcs", "DescribeAvailabilityZones", "DescribeRegions",
    "GetObject", "PutObject", "DeleteObject", "ListBucket", "ListBucketVersions",
    "GetObjectVersion", "DeleteObjectVersion", "ListAllMyBuckets", "GetLifecycleConfiguration",
    "PutLifecycleConfiguration", "AssumeRole", "GetCallerIdentity", "GetParameter",
    "GetParameters", "GetSecretValue", "CreateSchedule", "UpdateSchedule", "GetSchedule",
    "DeleteSchedule", "ListSchedules",
)  # fmt: skip
_NEAR = 0.88


def _refuse(value: object, wanted: str) -> ValueError:
    return ValueError(f"{value!r} is not {wanted}")


def _whole(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refuse(value, "a whole number from 0 on")


def _number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refuse(value, "a number of seconds")


def _seconds(value: object) -> None:
    _number(value)
    if isinstance(value, int | float) and value < 0:
        raise _refuse(value, "a number of seconds from 0 on")


def _seconds_or_none(value: object) -> None:
    if value is not None:
        _seconds(value)


def _switch(value: object) -> None:
    if not isinstance(value, bool):
        raise _refuse(value, "true or false")


def _text(value: object) -> None:
    if not isinstance(value, str) or not value:
        raise _refuse(value, "a text")


def _any_text(value: object) -> None:
    if not isinstance(value, str):
        raise _refuse(value, "a text")


def _regex(value: object) -> None:
    if not isinstance(value, str):
        raise _refuse(value, "a text")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error


def _regexes(value: object) -> None:
    if not isinstance(value, Mapping):
        raise _refuse(value, "a mapping of parameter to regular expression")
    for name, pattern in value.items():
        try:
            _regex(pattern)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _patterns(value: object) -> None:
    """Accept one text with ``*`` in it, or several."""
    for one in value if isinstance(value, list) and value else [value]:
        _text(one)


def _market(value: object) -> None:
    if value not in ("spot", "on-demand", "*"):
        raise _refuse(value, "spot, on-demand or *")


def _http(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise _refuse(value, "an HTTP status from 400 to 599")


def _action(value: object) -> None:
    _text(value)
    service, _, name = str(value).rpartition(":")
    prefix = f"{service}:" if service else ""
    if name in _OTHER_NAMES:
        raise ValueError(f"{value!r} is called {prefix + _OTHER_NAMES[name]!r} here")
    if "*" in name or name in _KNOWN_ACTIONS:
        return
    near = get_close_matches(name, _KNOWN_ACTIONS, n=1, cutoff=_NEAR)
    if near:
        raise ValueError(f"{value!r} is not known. Did you mean {prefix + near[0]!r}?")


_CHECKS: Mapping[str, Callable[[object], None]] = {
    "action": _action,
    "after": _switch,
    "bucket": _regex,
    "by": _regex,
    "code": _any_text,
    "count": _whole,
    "delay": _seconds,
    "distortion": _any_text,
    "drop": _switch,
    "executed": _switch,
    "extra": _whole,
    "fades_tags": _seconds_or_none,
    "hides_every": _seconds,
    "http": _http,
    "instance_type": _patterns,
    "key": _regex,
    "lasts": _seconds,
    "market": _market,
    "match": _regexes,
    "message": _any_text,
    "method": _regex,
    "refuses": _switch,
    "refuses_skew": _switch,
    "seconds": _number,
    "shifts_date": _number,
    "start_after": _seconds,
    "subnet": _patterns,
    "twice": _switch,
    "zone": _patterns,
}


def check_values(rule: Mapping[str, object]) -> None:
    """
    Check every value of a rule whose keys are known.

    :raises ValueError: names the key, what was found, and what it must be
    """
    for name, value in rule.items():
        check = _CHECKS.get(str(name))
        if check is None:
            continue
        try:
            check(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
