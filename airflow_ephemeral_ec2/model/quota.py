"""Which limit of the AWS account an instance type counts against."""

import re

_STANDARD = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})
_SHARED = {"gr": "g", "vt": "g"}


def quota_family(instance_type: str) -> str:
    """
    Name the group of families that share one vCPU quota, like ``standard``, ``g`` or ``p``.

    Source: EC2 user guide, "Amazon EC2 service quotas": On-Demand and Spot vCPU limits.
    """
    found = re.match(r"[a-z]+", instance_type)
    family = found.group() if found else instance_type
    return "standard" if family in _STANDARD else _SHARED.get(family, family)
