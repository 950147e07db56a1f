"""The job's process: how it is started, stopped and accounted for.

Two runners with one face. ``SystemdJob`` is a transient unit of its own: unprivileged, away from
the instance metadata, with limits that hold if the agent dies. ``PlainJob`` is a session of its
own, for a local EC2 and for machines without systemd.
"""

# Pathlib costs bytes and 10 ms at start; the commands are the job and ours.
# ruff: noqa: PTH103, PTH108, PTH112, PTH123, PTH208, S603, S607

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.contract import ERROR_INTERNAL, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

try:
    import ctypes
except ImportError:  # a Python without libffi: orphans then escape to PID 1
    ctypes = None  # type: ignore[assignment]

RUN = "/run/ephemeral-ec2"
UNIT = "ephemeral-ec2-job"
PR_SET_CHILD_SUBREAPER = 36
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
STOP_POST = f"""d=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
{{ for v in SERVICE_RESULT EXIT_CODE EXIT_STATUS; do eval echo $v=\\$$v; done
sed 's/ /=/' $d/cpu.stat; echo peak=$(cat $d/memory.peak); }} 2>/dev/null >{RUN}/result
"""


class Ending(NamedTuple):
    """How a process ended; ``exit_code`` is 128+n for signal n, as in a shell."""

    exit_code: int
    signal: int | None = None
    oom: bool = False
    timed_out: bool = False
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


class PlainJob:
    """A session of its own; the agent adopts, reaps and in the end kills all its descendants."""

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: str,
        output: int,
        ended: Callable[[], object],
    ) -> None:
        self._oom_kills, self._killed = oom_kills(), False
        self._status, self._cpu, self._peak = 0, 0.0, 0
        self.is_over, self._childless = threading.Event(), threading.Event()
        self._ended = ended
        if ctypes and sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            self._process = subprocess.Popen(
                argv, env=environ, cwd=folder, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as e:
            denied = isinstance(e, PermissionError) or getattr(e, "errno", 0) == 8
            reason = getattr(e, "strerror", None) or e
            os.write(output, f"{argv[0]}: {reason}\n".encode())
            self._status = (EXIT_NOT_EXECUTABLE if denied else EXIT_NOT_FOUND) << 8
            self.is_over.set()
            self._childless.set()
            return
        self._pid = self._process.pid
        threading.Thread(target=self._reap, daemon=True).start()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._killed = True
        self._signal(signal.SIGKILL)

    def finish(self) -> Ending:
        """Kill whatever the command left behind; say how it ended."""
        end = time.monotonic() + 5
        while not self._childless.is_set() and time.monotonic() < end:
            for pid in descendants(os.getpid()):
                _send(os.kill, pid, signal.SIGKILL)
            self._childless.wait(0.02)
        # A command that could not even be killed counts as killed.
        status = self._status if self.is_over.is_set() else signal.SIGKILL
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = 128 + number if number else os.WEXITSTATUS(status)
        oom = code == 137 and not self._killed and oom_kills() > self._oom_kills
        return Ending(code, number, oom, False, round(self._cpu, 3), self._peak)

    def _signal(self, number: int) -> None:
        if not self.is_over.is_set():
            _send(os.killpg, self._pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, 0)
            except ChildProcessError:
                break
            self._cpu += usage.ru_utime + usage.ru_stime
            self._peak = max(self._peak, usage.ru_maxrss * RSS_UNIT)
            if pid == self._pid:
                self._process.returncode = 0  # reaped here, not by subprocess
                _send(os.killpg, pid, signal.SIGKILL)
                self._status = status
                self.is_over.set()
                self._ended()
        self._childless.set()


class SystemdJob:
    """A transient systemd unit; all that it needs is in ``/run``, which no full disk touches.

    Nothing here goes over D-Bus, which is among the first to go when the machine is shut down:
    output and end arrive through named pipes.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: str,
        ended: Callable[[], object],
        *,
        user: str,
        seconds: float,
        grace: int,
    ) -> None:
        self._ended, self._text = ended, ""
        self.is_over = threading.Event()
        _write(RUN + "/job", job_script(argv, environ, folder), user)
        _write(RUN + "/stop-post", STOP_POST)
        _named_pipe(RUN + "/result", "root")
        done = subprocess.run(
            unit_command(user, folder, seconds, grace), check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise Failure(ERROR_INTERNAL, f"systemd-run: {done.stderr[-300:]}")
        threading.Thread(target=self._wait, daemon=True).start()

    def terminate(self) -> None:
        subprocess.run(["systemctl", "stop", "--no-block", UNIT], check=False)

    def kill(self) -> None:
        # systemd kills at TimeoutStopSec, too; all but "main" would take ExecStopPost along.
        subprocess.run(["systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT], check=False)

    def finish(self) -> Ending:
        """Read what ``ExecStopPost`` said; the unit's cgroup took all descendants with it."""
        if not self.is_over.is_set():
            return Ending(128 + signal.SIGKILL, signal.SIGKILL)
        return unit_ending(self._text)

    def _wait(self) -> None:
        with open(RUN + "/result") as file:
            self._text = file.read()
        self.is_over.set()
        self._ended()


def unit_command(user: str, folder: str, seconds: float, grace: int) -> list[str]:
    """Return the argv that starts ``/run/ephemeral-ec2/job`` as a unit."""
    properties = (
        f"User={user}",
        f"WorkingDirectory={folder}",
        f"RuntimeMaxSec={seconds:.0f}",
        f"TimeoutStopSec={grace}",
        "IPAddressDeny=169.254.169.254 fd00:ec2::254",
        "NoNewPrivileges=yes",
        "OOMPolicy=stop",
        "CPUAccounting=yes",
        "MemoryAccounting=yes",
        "LimitNOFILE=65536",
        # At shutdown the job is stopped while there is still a network to report over.
        "After=network-online.target",
        f"StandardOutput=file:{RUN}/log",
        "StandardError=inherit",
        f"ExecStopPost=+/bin/sh {RUN}/stop-post",
    )
    given = ["--property=" + text for text in properties]
    options = ["--quiet", "--collect", "--unit=" + UNIT]
    return ["systemd-run", *options, *given, "/bin/sh", RUN + "/job"]


def output_pipe(user: str) -> tuple[int, int]:
    """Return a pipe to read output from and its other end; with a user, named for ``user``."""
    if not user:
        return os.pipe()
    os.makedirs(RUN, mode=0o755, exist_ok=True)
    path = RUN + "/log"
    _named_pipe(path, user)
    receive = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(receive, True)
    return receive, os.open(path, os.O_WRONLY)


def unit_ending(text: str) -> Ending:
    """Read SERVICE_RESULT, EXIT_CODE and EXIT_STATUS (systemd.exec) and the cgroup's numbers.

    Raises:
        Failure: the words are not there.

    """
    found = dict(re.findall(r"(?m)^(\w+)=(\S+)$", text))
    result, status = found.get("SERVICE_RESULT", ""), found.get("EXIT_STATUS", "")
    if not result or not status:
        raise Failure(ERROR_INTERNAL, "systemd did not say how the job ended")
    number = None
    if found["EXIT_CODE"] != "exited":
        number = int(status) if status.isdigit() else signal.Signals["SIG" + status].value
    return Ending(
        128 + number if number else int(status),
        number,
        result == "oom-kill",
        result == "timeout",
        int(found.get("usage_usec", 0)) / 1e6,
        int(found.get("peak", 0)),
    )


def job_script(argv: Sequence[str], environ: Mapping[str, str], folder: str) -> str:
    """Return a shell script: 126 and 127 come from the shell, and no secret is in any argv."""
    exports = "".join(f"export {name}={shlex.quote(text)}\n" for name, text in environ.items())
    return f"{exports}cd {shlex.quote(folder)}\nexec " + " ".join(map(shlex.quote, argv)) + "\n"


def _write(path: str, text: str, user: str = "root") -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    if user != "root":
        own(path, user)


def _named_pipe(path: str, user: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    os.mkfifo(path, 0o600)
    own(path, user)


def own(path: str, user: str) -> None:
    """Give a file or a folder with all that is in it to the job's user."""
    subprocess.run(["chown", "-hR", f"{user}:", path], check=True)


def _send(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def descendants(root: int) -> Iterator[int]:
    """Yield the process ids below ``root``, from /proc; nothing where there is none."""
    parents: dict[str, list[str]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        words = read(f"/proc/{name}/stat").rpartition(")")[2].split()
        if name.isdigit() and words:
            parents.setdefault(words[1], []).append(name)
    found = [str(root)]
    while found:
        children = parents.get(found.pop(), [])
        found += children
        yield from map(int, children)


def oom_kills() -> int:
    """Return how often the kernel killed in this cgroup (v2) for want of memory; 0 if unknown."""
    group = read("/proc/self/cgroup").rpartition("0::")[2].strip()
    found = re.search(r"oom_kill (\d+)", read(f"/sys/fs/cgroup{group}/memory.events"))
    return int(found.group(1)) if found else 0


def read(path: str) -> str:
    """Return a file of the kernel's; empty if it is not there."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
