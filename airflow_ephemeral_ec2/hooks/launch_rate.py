"""The pace of launches: EC2 takes so many calls and no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class LaunchRate:
    """
    A token bucket at EC2's own numbers: 5 at once, then 2 a second.

    Source: EC2 API reference, "Request throttling", RunInstances, per account and region.
    """

    def __init__(
        self,
        burst: float = 5.0,
        per_second: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst, self._per_second, self._monotonic = burst, per_second, monotonic
        self._tokens, self._at = burst, monotonic()

    def take(self) -> bool:
        """Take the right to make one call; False when none is left now."""
        now = self._monotonic()
        if now < self._at:
            return False
        self._tokens = min(self._burst, self._tokens + max(now - self._at, 0) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def pause(self, seconds: float) -> None:
        """Make no call for a while, then one: EC2 said that there were too many."""
        self._tokens, self._at = 1.0, self._monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the next call may be made, if nobody else makes it."""
        until_full = max(1 - self._tokens, 0) / self._per_second
        return max(self._at + until_full - self._monotonic(), 0.0)
