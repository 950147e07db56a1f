"""EC2's token buckets per action (EC2 developer guide, "Request throttling for the Amazon EC2 API")."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EC2_BUCKETS: dict[str, tuple[float, float]] = {
    "RunInstances": (5, 2),
    "TerminateInstances": (100, 5),
    "Describe": (100, 20),
    "unfiltered": (50, 10),
    "mutating": (50, 5),
}
"""Bucket -> (requests at once, refill a second), per account and region."""
UNFILTERED = frozenset({"DescribeInstances", "DescribeInstanceStatus"})


class TokenBucket:
    """So many requests at once, then so many a second."""

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst, self._per_second = burst, per_second
        self._tokens, self._at = burst, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Throttle:
    """The buckets of one account and region; without any, everything passes."""

    def __init__(self, buckets: Mapping[str, tuple[float, float]] | None = None) -> None:
        self._buckets = {name: TokenBucket(*size) for name, size in (buckets or {}).items()}

    def allows(self, action: str, *, is_narrowed: bool) -> bool:
        """
        Say whether EC2 takes a call now.

        :param is_narrowed: the call names instances, filters or a page size; calls that do not
            share a smaller bucket. Naming ids counts as narrowing: the guide does not say so, and
            it is to the advantage of who asks for single instances.
        """
        bucket = self._buckets.get(self._bucket_of(action, is_narrowed=is_narrowed))
        return bucket is None or bucket.take()

    def _bucket_of(self, action: str, *, is_narrowed: bool) -> str:
        if action in self._buckets:
            return action
        if action.startswith(("Describe", "Get", "List")):
            return "Describe" if is_narrowed or action not in UNFILTERED else "unfiltered"
        return "mutating"
