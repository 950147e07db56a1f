"""The pace of launches: EC2 takes so many calls and no more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take the right to make one call; False when none is left now."""
        with self._lock:
            if self._refill() < 1:
                return False
            self._tokens -= 1
            return True

    @property
    def turns(self) -> int:
        """How many calls may be made now."""
        with self._lock:
            return int(self._refill())

    def _refill(self) -> float:
        now = self._monotonic()
        if now < self._at:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return self._tokens

    def pause(self, seconds: float) -> None:
        """Make no call for a while, then one: EC2 said that there were too many."""
        with self._lock:
            self._tokens, self._at = 1.0, self._monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the next call may be made, if nobody else makes it."""
        until_full = max(1 - self._tokens, 0) / self._per_second
        return max(self._at + until_full - self._monotonic(), 0.0)


GAP_SECONDS = 0.05
"""Between two calls that are under way at the same time, so that EC2 gets them in order."""


class Turnstile:
    """
    Lets threads make their calls in order, without waiting for each other's answers.

    But who asks for an offering that nobody knows to be there waits for the answer of the one
    before: its refusal holds for all.
    """

    def __init__(self, names: Sequence[str], gap_seconds: float = GAP_SECONDS) -> None:
        self._names, self._gap = list(names), gap_seconds
        self._changed = threading.Condition()
        self._asked: dict[str, str] = {}
        self._left: set[str] = set()

    def enter(self, name: str, offering: str, *, is_there: bool) -> None:
        """
        Wait until all before have made their call or have left.

        :param is_there: the offering has just given a machine
        """
        with self._changed:
            before = self._names[: self._names.index(name)]
            self._changed.wait_for(lambda: (self._asked.keys() | self._left).issuperset(before))
            if not is_there:
                same = {one for one in before if self._asked.get(one) == offering}
                self._changed.wait_for(lambda: self._left.issuperset(same))
            if before and before[-1] not in self._left:
                time.sleep(self._gap)
            self._asked[name] = offering
            self._changed.notify_all()

    def leave(self, name: str) -> None:
        """Say that nothing more comes from this one."""
        with self._changed:
            self._left.add(name)
            self._changed.notify_all()
