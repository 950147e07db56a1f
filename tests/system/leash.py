"""Run one command so that nothing of it outlives whoever started it.

``python leash.py [--stay PIDFILE] GRACE COMMAND...``: stdin is the leash. When it closes, because its holder let go
or died by whatever signal, the command gets SIGTERM, and after GRACE seconds every process that
descends from it is killed, those that moved to sessions of their own included (Linux: this
process is their subreaper). With ``--stay`` the end of the command alone ends nothing: what it
left behind lives on, as it would without a leash, until stdin closes. Standard library only: it
starts in some milliseconds.
"""
# ruff: noqa: PTH105, PTH112, PTH123, PTH208, T201 - standard library without pathlib: it starts in some milliseconds

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


def write(path, pid):
    """Say who the command is, at once and whole."""
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(str(pid))
    os.replace(f"{path}.new", path)


def main(grace, command, pid_file=None):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl-C reaches the whole group of a terminal; only the holder of the leash decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whoever ends the whole group (``timeout`` does) must not set free what is held here.
    ends = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ends.append(True))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    if pid_file:
        write(pid_file, process.pid)
    while not ends and (process.poll() is None or pid_file):
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1):
            break
    end(process, grace)
    status = process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"leash: {seconds:.1f} s of CPU, largest process {peak:.0f} MiB", file=sys.stderr)
    return status


if __name__ == "__main__":
    words = sys.argv[1:]
    pid_file = words[1] if words[0] == "--stay" else None
    words = words[2:] if pid_file else words
    sys.exit(main(float(words[0]), words[1:], pid_file))
