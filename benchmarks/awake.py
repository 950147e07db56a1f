"""Keeps the cores of this machine from halting while something is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends with who started it, also when that is killed."""


@contextmanager
def kept_awake() -> Iterator[None]:
    """
    Run a process of the lowest priority (``SCHED_IDLE``) on each core.

    It gives way to everything else at once. Without it, a loop that does nothing but wake 20 times
    a second is charged with 0.5 to 2.6 CPU s a minute in a virtual machine: to wake a halted core
    takes up to 2 ms, and whoever wakes pays. Where a triggerer works, cores seldom halt.
    """
    if not hasattr(os, "sched_setscheduler"):  # not Linux
        yield
        return
    command = [sys.executable, "-S", "-c", SPIN]
    spinning = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        for one in spinning:
            os.sched_setscheduler(one.pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()
