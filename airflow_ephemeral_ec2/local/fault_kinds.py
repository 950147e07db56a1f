"""Faults by name: what users write in ``faults.yaml`` becomes rules, harms or limits."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from airflow_ephemeral_ec2.local.distortions import DISTORTIONS
from airflow_ephemeral_ec2.local.faults import Fault, parse_fault
from airflow_ephemeral_ec2.local.harms import HOWS, Harm, parse_harm

Rule = Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """What the account may have at once, and how fast it may ask; None: without limit."""

    vcpus: int | None = None
    spot_vcpus: int | None = None
    is_throttled: bool = False
    """Whether EC2's own request buckets hold."""


@dataclass(frozen=True)
class Plan:
    """What a list of rules asks for."""

    faults: tuple[Fault, ...] = ()
    harms: tuple[Harm, ...] = ()
    limits: Limits = Limits()


_COMMON = ("count", "start_after", "lasts", "by")
_PLACE = ("instance_type", "zone", "subnet", "market")


def _common(rule: Rule) -> dict[str, Any]:
    return {name: rule[name] for name in _COMMON if name in rule}


def _place(rule: Rule) -> dict[str, str]:
    """Say which launches a rule is about; ``*`` stands for anything."""
    return {name: _pattern(rule[name]) for name in _PLACE if name in rule}


def _pattern(text: object) -> str:
    parts = [re.escape(part) for part in str(text).split("*")]
    return "^" + ".*".join(parts) + "$"


def _key(rule: Rule) -> dict[str, str]:
    found = {"Key": str(rule["key"])} if "key" in rule else {}
    return found | ({"method": str(rule["method"])} if "method" in rule else {})


def _capacity(rule: Rule) -> Fault:
    code = str(rule.get("code", "InsufficientInstanceCapacity"))
    http = 400 if code in ("Unsupported", "InsufficientFreeAddressesInSubnet") else 500
    return Fault("RunInstances", _place(rule), code=code, http=http, **_common(rule))


def _quota(rule: Rule) -> Fault:
    spot = rule.get("market") == "spot"
    code = "MaxSpotInstanceCountExceeded" if spot else "VcpuLimitExceeded"
    return Fault("RunInstances", _place(rule), code=code, http=400, **_common(rule))


def _throttle(rule: Rule) -> Fault:
    action = str(rule.get("action", "RunInstances"))
    return Fault(action, code="RequestLimitExceeded", http=503, **_common(rule))


def _error(rule: Rule) -> Fault:
    return Fault(
        str(rule.get("action", "RunInstances")),
        code=str(rule.get("code", "InternalError")),
        http=int(rule.get("http", 500)),
        after=bool(rule.get("after", False)),
        **_common(rule),
    )


def _lost_response(rule: Rule) -> Fault:
    after = bool(rule.get("executed", True))
    return Fault(str(rule.get("action", "RunInstances")), drop=True, after=after, **_common(rule))


def _duplicate(rule: Rule) -> Fault:
    return Fault(str(rule.get("action", "RunInstances")), twice=True, **_common(rule))


def _answer(rule: Rule) -> Fault:
    if rule["with"] not in DISTORTIONS:
        msg = f"with: distortion {rule['with']!r} is not known; allowed: {', '.join(DISTORTIONS)}"
        raise ValueError(msg)
    return Fault(
        str(rule.get("action", "RunInstances")), distortion=str(rule["with"]), **_common(rule)
    )


def _zone_down(rule: Rule) -> Fault:
    return Fault("DescribeInstances", code="InternalError", http=500, **_common(rule))


def _s3(rule: Rule) -> Fault:
    status = int(rule.get("status", 503))
    code = {
        403: "AccessDenied", 404: "NoSuchKey", 409: "ConditionalRequestConflict",
        412: "PreconditionFailed", 500: "InternalError", 503: "SlowDown",
    }.get(status, "InternalError")  # fmt: skip
    after = bool(rule.get("after", False))
    return Fault("s3:*", _key(rule), code=code, http=status, after=after, **_common(rule))


def _s3_slow(rule: Rule) -> Fault:
    return Fault("s3:*", _key(rule), delay=float(rule.get("seconds", 5.0)), **_common(rule))


def _s3_lost(rule: Rule) -> Fault:
    after = bool(rule.get("executed", True))
    return Fault("s3:*", _key(rule), drop=True, after=after, **_common(rule))


def _sts(rule: Rule) -> Fault:
    return Fault("sts:AssumeRole", code="AccessDenied", http=403, **_common(rule))


def _clock_skew(rule: Rule) -> Fault:
    return Fault("*", shifts_date=float(rule["seconds"]), **({"count": 0} | _common(rule)))


def _expired(rule: Rule) -> Fault:
    action = str(rule.get("action", "RunInstances"))
    code = str(rule.get("code", "RequestExpired"))
    return Fault(action, code=code, http=400, **_common(rule))


KINDS: Mapping[str, tuple[Callable[[Rule], Fault], tuple[str, ...], str]] = {
    "capacity": (_capacity, (*_PLACE, "code"), "no capacity for launches like that"),
    "quota": (_quota, _PLACE, "the account's quota is reached for launches like that"),
    "throttle": (_throttle, ("action",), "RequestLimitExceeded"),
    "error": (_error, ("action", "code", "http", "after"),
              "an error; with after: true the call is executed all the same"),
    "lost-response": (_lost_response, ("action", "executed"),
                      "the connection closes without an answer"),
    "duplicate": (_duplicate, ("action",), "the request is delivered twice"),
    "answer": (_answer, ("action", "with"),
               "a broken answer: no-instances, no-id, two-instances, truncated, empty"),
    "zone-down": (_zone_down, (), "DescribeInstances fails"),
    "s3": (_s3, ("status", "key", "method", "after"), "S3 answers 403, 409, 412, 500 or 503"),
    "s3-slow": (_s3_slow, ("seconds", "key", "method"), "S3 answers late"),
    "s3-lost": (_s3_lost, ("executed", "key", "method"), "S3 does not answer"),
    "sts": (_sts, (), "AssumeRole is refused"),
    "clock-skew": (_clock_skew, ("seconds",), "the Date of every answer is off"),
    "expired": (_expired, ("action", "code"), "credentials or signature have expired"),
}  # fmt: skip
"""Kind -> how it becomes a rule, its own keys, what it does."""
_LIMITS = tuple(one.name for one in fields(Limits))


def parse_rule(rule: object) -> Fault | Harm | Limits:
    """
    Read one rule: a ``kind``, a harm's ``how``, ``limits``, or a low-level ``action``.

    :raises ValueError: not a rule; says what was found and what is allowed
    """
    if not isinstance(rule, Mapping):
        msg = f"expected a mapping, found {type(rule).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for all of the user's mistakes
    if "limits" in rule:
        return _parse_limits(rule["limits"])
    if "how" in rule:
        return parse_harm(rule)
    if "kind" not in rule:
        return parse_fault(rule)
    kind = str(rule["kind"])
    if kind not in KINDS:
        known = [*KINDS, *HOWS]
        near = get_close_matches(kind, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"kind: {kind!r} is not known;{hint} allowed: {', '.join(KINDS)}"
        raise ValueError(msg)
    make, own, _ = KINDS[kind]
    _check_keys(rule, ("kind", *own, *_COMMON), kind)
    try:
        return make(rule)
    except KeyError as error:
        msg = f"kind {kind}: {error.args[0]} is missing"
        raise ValueError(msg) from error


def _check_keys(rule: Rule, allowed: tuple[str, ...], kind: str) -> None:
    for name in rule:
        if name not in allowed:
            near = get_close_matches(str(name), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            msg = f"kind {kind}: unknown key {name!r};{hint} allowed: {', '.join(allowed)}"
            raise ValueError(msg)


def _parse_limits(body: object) -> Limits:
    if not isinstance(body, Mapping) or not set(body) <= set(_LIMITS):
        msg = f"limits: a mapping of {', '.join(_LIMITS)}; found {body!r}"
        raise ValueError(msg)
    for name in ("vcpus", "spot_vcpus"):
        if name in body and (type(body[name]) is not int or body[name] < 0):
            msg = f"limits: {name}: {body[name]!r} is not a number of vCPUs"
            raise ValueError(msg)
    return Limits(**body)


def parse_rules(rules: object, place: str) -> Plan:
    """
    Read a list of rules.

    :param place: where it stands, for messages
    :raises ValueError: names the place, the rule's number, what was found and what is allowed
    """
    if not isinstance(rules, list):
        msg = f"{place}: expected a list of rules, found {type(rules).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - as above
    found: list[Fault | Harm | Limits] = []
    for number, rule in enumerate(rules, start=1):
        try:
            found.append(parse_rule(rule))
        except (ValueError, TypeError) as error:
            msg = f"{place}: rule {number}: {error}"
            raise ValueError(msg) from error
    limits = [one for one in found if isinstance(one, Limits)]
    return Plan(
        tuple(one for one in found if isinstance(one, Fault)),
        tuple(one for one in found if isinstance(one, Harm)),
        limits[-1] if limits else Limits(),
    )


def load_faults(path: Path) -> Plan:
    """
    Read a ``faults.yaml``.

    :raises ValueError: it cannot be read; names file, rule and key
    """
    try:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    return parse_rules(rules or [], str(path))
