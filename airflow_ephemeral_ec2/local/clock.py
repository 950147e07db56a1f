"""One thread that calls back later, for all machines."""

import heapq
import itertools
import threading
import time
import traceback
from collections.abc import Callable

Callback = Callable[[], None]


class Clock:
    """Callbacks run one after another in the clock's thread and must be quick."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callback]] = []
        self._numbers = itertools.count()
        self._wake = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="clock").start()

    def after(self, seconds: float, callback: Callback) -> None:
        with self._wake:
            entry = (time.monotonic() + seconds, next(self._numbers), callback)
            heapq.heappush(self._heap, entry)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            try:
                self._next()()
            except Exception:  # noqa: BLE001 - one callback's fault must not stop time for all
                traceback.print_exc()

    def _next(self) -> Callback:
        with self._wake:
            while True:
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._wake.wait(wait)
