"""Time as S3 tells it: its ``Date`` header, advanced by a monotonic clock.

A machine's own clock may be minutes off when user data starts, and it jumps when it is set.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DRIFT = 60.0
"""Seconds. SigV4 accepts 15 minutes; one Date header is up to a round trip old."""


class Clock:
    """Seconds since the epoch, once S3 has answered independent of the machine's clock."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.monotonic = monotonic
        self._offset = wall() - monotonic()
        self._observed = False

    def now(self) -> float:
        return self.monotonic() + self._offset

    def observe(self, date: str | None) -> None:
        """Learn from a ``Date`` header; later ones count only if they differ by a minute."""
        if not date:
            return
        try:
            offset = parsedate_to_datetime(date).timestamp() - self.monotonic()
        except (TypeError, ValueError):
            return
        if not self._observed or abs(offset - self._offset) > MAX_DRIFT:
            self._offset, self._observed = offset, True

    def iso(self) -> str:
        """Return now as ISO 8601 UTC with milliseconds."""
        now = datetime.fromtimestamp(self.now(), timezone.utc)
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def amz_date(self) -> str:
        """Return now in the form that signatures use."""
        return datetime.fromtimestamp(self.now(), timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def from_iso(text: str) -> float:
    """Seconds since the epoch of AWS's ``2026-03-01T02:00:00Z``."""
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp()
