"""Keeps Python's garbage collector from stopping a process that holds much and reads much."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_WAITING = 1_000
NEW_PART = 8
"""Set aside again when one in so many is new: what is not is looked through in a tenth of a second."""
TURNOVERS = 10
"""All is looked through once when so many times as many as now wait have come: circles do not add up."""
MOST_COLLECTED = 5_000
"""While more wait that look is put off: 0.07 s per thousand, and the loop may stand still for 0.5 s."""

_lock = threading.Lock()
_reading = 0
_was_enabled = False


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """
    Put automatic collections off while a large answer is read.

    A page of 1,000 instances is some 100,000 objects, all free again by their reference counts. The
    collector would take them for what has come to stay and look through everything that the
    process holds, with the event loop standing still (CPython, Modules/gcmodule.c: a full
    collection comes when what survived is a quarter of what is there). Any thread may enter;
    collections go on when the last one has left.
    """
    global _reading, _was_enabled  # noqa: PLW0603 - the collector is the process's, not ours
    with _lock:
        if _reading == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _reading += 1
    try:
        yield
    finally:
        with _lock:
            _reading -= 1
            if _reading == 0 and _was_enabled:
                gc.enable()


def _begin_in_child() -> None:
    """Let a forked child collect: the threads that read in its parent are not in it."""
    global _lock, _reading  # noqa: PLW0603 - as above
    _lock = threading.Lock()
    if _reading and _was_enabled:
        gc.enable()
    _reading = 0


os.register_at_fork(after_in_child=_begin_in_child)


@dataclass(frozen=True)
class Spared:
    """What of the process was last set aside from collections, as the triggers waiting in it."""

    waiting: int = 0
    """How many waited then; 0: nothing is set aside."""
    arrived: int = 0
    """How many had ever waited."""
    collected: int = 0
    """How many had ever waited when all was last looked through."""

    def next(self, waiting: int, arrived: int) -> Spared:
        """Return what should be set aside now; itself when nothing is to be done."""
        if self.waiting and waiting < self.waiting / 2:
            return Spared(0, arrived, arrived)
        if waiting >= LEAST_WAITING and arrived - self.arrived >= waiting / NEW_PART:
            is_over = arrived - self.collected >= waiting * TURNOVERS
            is_due = not self.waiting or (is_over and waiting <= MOST_COLLECTED)
            return Spared(waiting, arrived, arrived if is_due else self.collected)
        return self


class SparedHeap:
    """
    Sets aside what lives in a process while a thousand triggers or more wait in it.

    A full collection looks through all that lives: 0.7 s with 10,000 waiting triggers, more than
    half of it Airflow's own. What is set aside is still freed by its reference count; only what
    keeps itself alive in a circle waits, until half of the triggers are gone or all have been
    replaced some times over (``gc.freeze``). The latter only while 5,000 or fewer wait: the loop
    stands still for 0.35 s then, and for more than it may with more.
    """

    def __init__(self) -> None:
        self.spared = Spared()

    def update(self, waiting: int, arrived: int) -> None:
        """Freeze or unfreeze, if it is time."""
        before, self.spared = self.spared, self.spared.next(waiting, arrived)
        if self.spared == before:
            return
        if not self.spared.waiting:
            gc.unfreeze()
            return
        if before.waiting and self.spared.collected != before.collected:
            gc.unfreeze()
            gc.collect()
        gc.freeze()
