"""Time as the bucket tells it, so that no host's clock decides anything."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime


class BucketClock:
    """
    The ``Date`` header of S3, carried forward by a monotonic clock.

    Each instance starts with the host's clock until the first answer of the bucket is seen.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._is_set = False

    def observe(self, date_header: str | None) -> None:
        """
        Learn from one answer of S3.

        The header has whole seconds, cut off; a first answer sets the clock, and later ones only
        move it when it is off by more than the header can say.
        """
        if not date_header:
            return
        seen = parsedate_to_datetime(date_header).timestamp() - self._monotonic()
        if not self._is_set or not seen - 1.0 <= self._offset <= seen + 1.5:
            self._offset = seen + (0.5 if not self._is_set else 0.0)
            self._is_set = True

    def now(self) -> float:
        """Seconds since 1970."""
        return self._monotonic() + self._offset
