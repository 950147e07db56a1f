"""Several processes in one simulated time: each call takes some, and meanwhile the others go on."""

import heapq
import itertools
import threading


class _OverError(BaseException):
    """Ends an actor where it is."""


class Turns:
    """
    Runs actors one at a time, always the one whose time has come first.

    Each actor is a thread, but only one runs: an order of events is the same in every run.
    """

    def __init__(self, clock):
        self._clock = clock
        self._due: list[tuple[float, int, threading.Event]] = []
        self._numbers = itertools.count()
        self._handed_back = threading.Event()
        self._is_over = False
        self.errors: list[Exception] = []

    def start(self, act):
        """Let an actor begin now; it goes on until it returns or ``run`` is over."""

        def work():
            try:
                self.sleep(0.0)
                act()
            except _OverError:
                pass
            except Exception as error:  # noqa: BLE001 - the test must hear of it, whatever it is
                self.errors.append(error)
            finally:
                self._handed_back.set()

        self._handed_back.clear()
        threading.Thread(target=work, daemon=True).start()
        assert self._handed_back.wait(5)

    def sleep(self, seconds):
        """Let time pass for the actor that calls."""
        mine = threading.Event()
        heapq.heappush(self._due, (self._clock.at + seconds, next(self._numbers), mine))
        self._handed_back.set()
        mine.wait()
        if self._is_over:
            raise _OverError

    def run(self, seconds):
        """Let so much time pass; then every actor ends where it is."""
        until = self._clock.at + seconds
        while self._due and self._due[0][0] <= until and not self.errors:
            self._clock.at, _, whose = heapq.heappop(self._due)
            self._hand_over(whose)
        self._is_over = True
        while self._due:
            self._hand_over(heapq.heappop(self._due)[2])
        if self.errors:
            raise self.errors[0]

    def _hand_over(self, whose):
        self._handed_back.clear()
        whose.set()
        assert self._handed_back.wait(5)
