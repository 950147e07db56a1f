"""Has this triggerer stood still? Then another one may have run its triggers meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEAT_SECONDS = 1.0
ASK_SECONDS = 10.0
STALL_SECONDS = 5.0
SILENCE_SECONDS = 20.0
"""Airflow gives the triggers of a silent triggerer away after ``triggerer_health_check_threshold``
(30 s): what stands still for less than these two is never overlooked by them."""
DOUBT_SECONDS = 60.0
"""After a stall Airflow cancels what was given away within a loop or two of the triggerer."""


class Heart:
    """
    Something that must beat at least every so many seconds.

    :param limit: seconds
    :param now: seconds, of a clock that goes on while the process is stopped
    """

    def __init__(self, limit: float, now: Callable[[], float]) -> None:
        self._limit, self._now = limit, now
        self._last = now()
        self._stalled_at: float | None = None

    def start(self) -> None:
        """Begin to watch: the time before does not count."""
        self._last = self._now()

    def beat(self) -> None:
        self._look()
        self._last = self._now()

    def is_in_doubt(self) -> bool:
        """Say whether it stands still, or did so until just now."""
        self._look()
        return self._stalled_at is not None and self._now() - self._stalled_at < DOUBT_SECONDS

    def _look(self) -> None:
        now = self._now()
        if now - self._last > self._limit:
            self._stalled_at = now


class Pulse:
    """
    Notes when a triggerer has stood still: stopped, paused with its VM, blocked or cut off.

    Two hearts: the event loop that runs the triggers, and Airflow's own part of the triggerer,
    which answers its questions. In Airflow 3 that is another process, and the first answer costs
    it seconds: it makes an API server of its own. Better when a trigger starts than when a user
    waits for a kill.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.loop = Heart(STALL_SECONDS, now)
        self.airflow = Heart(SILENCE_SECONDS, now)
        self._holders = 0
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def is_in_doubt(self) -> bool:
        """Say whether triggers of this loop may have been run by somebody else until just now."""
        return self.loop.is_in_doubt() or self.airflow.is_in_doubt()

    @contextlib.contextmanager
    def felt(self, ask: Callable[[], object] | None = None) -> Iterator[None]:
        """
        Watch the running loop for as long as anybody is in this block.

        :param ask: a question that only Airflow can answer; blocks; None: no answer
        """
        self._holders += 1
        if self._holders == 1:
            self.loop.start()
            self.airflow.start()
            loop = asyncio.get_running_loop()
            works = [self._beat(), self._listen(ask)]
            self._tasks = tuple(map(loop.create_task, works))
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                for task in self._tasks:
                    task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.loop.beat()

    async def _listen(self, ask: Callable[[], object] | None) -> None:
        while True:
            if ask is None or await asyncio.to_thread(ask) is not None:
                self.airflow.beat()
            await asyncio.sleep(ASK_SECONDS)


_pulses: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pulse] = weakref.WeakKeyDictionary()


def pulse() -> Pulse:
    """Return the pulse of the running event loop."""
    return _pulses.setdefault(asyncio.get_running_loop(), Pulse())
