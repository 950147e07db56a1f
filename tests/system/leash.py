"""Run one command so that nothing of it outlives whoever started it.

``python leash.py GRACE COMMAND...``: stdin is the leash. When it closes, because its holder let go
or died by whatever signal, the command gets SIGTERM, and after GRACE seconds every process that
descends from it is killed, those that moved to sessions of their own included (Linux: this
process is their subreaper). Standard library only: it starts in some milliseconds.
"""
# ruff: noqa: PTH112, PTH123, PTH208, T201 - standard library without pathlib: it starts in some milliseconds

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def descendants(root):
    """List the living descendants of a process, parents first."""
    children = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{int(name)}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        born = children.get(waiting.pop(), [])
        found += born
        waiting += born
    return found


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end(process, grace):
    """End the command, then all that it left behind."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    if not os.path.isdir("/proc/self"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    # Again and again: a process may have been born while the list was made.
    while left := descendants(os.getpid()):
        send(left, signal.SIGKILL)
        time.sleep(0.02)


def main(grace, command):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl-C reaches the whole group of a terminal; only the holder of the leash decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1):
            break
    end(process, grace)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"leash: {seconds:.1f} s of CPU, largest process {peak:.0f} MiB", file=sys.stderr)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
