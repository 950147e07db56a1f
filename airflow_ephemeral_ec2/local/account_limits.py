"""Limits of the account: vCPUs at once, requests a second."""

import threading
import time
from collections.abc import Callable

from airflow_ephemeral_ec2.local.fault_kinds import Limits
from airflow_ephemeral_ec2.local.faults import Fault

BUCKETS = {"RunInstances": (5.0, 2.0), "StartInstances": (5.0, 2.0), "CreateTags": (100.0, 10.0),
           "TerminateInstances": (100.0, 5.0)}  # fmt: skip
READING = (100.0, 20.0)
CHANGING = (50.0, 5.0)
"""Burst and refill a second (EC2 developer guide, "Request throttling")."""


def bucket_of(action: str) -> tuple[float, float]:
    """Return burst and refill of an action's bucket."""
    if action in BUCKETS:
        return BUCKETS[action]
    return READING if action.startswith(("Describe", "Get", "List")) else CHANGING


class AccountLimits:
    """What is in force; requests over it are refused as EC2 does."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.limits = Limits()
        self._monotonic = monotonic
        self._tokens: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def throttle(self, action: str) -> Fault | None:
        """Take one token of an action's bucket; a refusal when none is left."""
        if not self.limits.is_throttled:
            return None
        burst, refill = bucket_of(action)
        now = self._monotonic()
        with self._lock:
            left, at = self._tokens.get(action, (burst, now))
            left = min(burst, left + (now - at) * refill)
            is_free = left >= 1
            self._tokens[action] = (left - 1 if is_free else left, now)
        return None if is_free else Fault(action, code="RequestLimitExceeded", http=503)

    def quota(self, wanted: int, in_use: int, *, is_spot: bool) -> Fault | None:
        """Refuse a launch that would go over the vCPUs of its market."""
        limit = self.limits.spot_vcpus if is_spot else self.limits.vcpus
        if limit is None or in_use + wanted <= limit:
            return None
        code = "MaxSpotInstanceCountExceeded" if is_spot else "VcpuLimitExceeded"
        return Fault("RunInstances", code=code, http=400)
