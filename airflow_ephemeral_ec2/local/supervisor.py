"""
One instance's process supervisor: starts the guest, finds all its processes, ends them.

A process of its own per instance, started with ``python -I -S``: standard library only, few
imports. The first line of stdin is the order (JSON), further lines are commands; end of file means
that the server died, and then everything of the instance ends at once. Events leave as JSON lines.

Nothing here can reach the host: the guest gets its own session, no capabilities, no new
privileges, and as root another user id, by which all its processes are found.
"""

# ruff: noqa: PTH108, PTH123, PTH208 - pathlib would double a supervisor's start

import base64
import errno
import json
import os
import resource
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from airflow_ephemeral_ec2.local import guest_processes as guests
else:
    import guest_processes as guests

CONSOLE_BYTES = 65_536
_CONSOLE_SECONDS = 0.5
_EXIT_GRACE = 1.0
"""Seconds a guest has to end by itself after it powered off."""
_STRAGGLERS_GRACE = 0.2
_SWEEP_SECONDS = 8.0


class Supervisor:
    """State of one guest, from its first process to its last."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.uid: int = order["uid"]
        self.power = os.open(order["power"], os.O_RDWR | os.O_NONBLOCK)
        self.main = 0
        self.main_ended = False
        self.stopping = False
        self.term_at: float | None = None
        self.kill_at: float | None = None
        self.output = -1
        self.console = bytearray()
        self.console_sent = 0.0
        self.console_changed = False
        self.commands = b""

    def run(self) -> None:
        """Live until no process of the guest is left and its folder is deleted."""
        self._start()
        while not self._must_kill():
            watched = [one for one in (0, self.power, self.output) if one >= 0]
            ready, _, _ = select.select(watched, [], [], self._patience())
            if 0 in ready:
                self._read_commands()
            if self.power in ready:
                self._read_power()
            if self.output in ready:
                self._read_output()
            self._reap()
            self._send_console()
        self._end_all()
        self._send_console(force=True)
        guests.remove_tree(self.order["folder"])
        _tell("gone")

    def _start(self) -> None:
        self.output, writer = os.pipe()
        os.set_blocking(self.output, False)
        # A stop that comes before the guest has its own signal handling must wait, not vanish.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self.main = os.fork()
        if self.main == 0:
            try:
                become_guest(self.order, writer)
            except BaseException as error:  # noqa: BLE001 - the child must never go on here
                os.write(2, f"local EC2: cannot start: {error!r}\n".encode())
            finally:
                os._exit(127)
        os.close(writer)

    def _read_output(self) -> None:
        for _ in range(16):
            try:
                data = os.read(self.output, 65_536)
            except BlockingIOError:
                return
            if not data:
                os.close(self.output)
                self.output = -1
                return
            self.console += data
            del self.console[:-CONSOLE_BYTES]
            self.console_changed = True

    def _send_console(self, *, force: bool = False) -> None:
        now = time.monotonic()
        due = force or now - self.console_sent > _CONSOLE_SECONDS
        if self.console_changed and due:
            self.console_sent, self.console_changed = now, False
            _tell("console", data=base64.b64encode(bytes(self.console)).decode())

    def _read_power(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.power, 4_096)
            if self.term_at is None and self.kill_at is None:
                _tell("power-off")
                self.term_at = time.monotonic() + _EXIT_GRACE

    def _read_commands(self) -> None:
        data = os.read(0, 4_096)
        if not data:
            self.kill_at, self.stopping = time.monotonic(), True
            return
        *complete, self.commands = (self.commands + data).split(b"\n")
        for line in complete:
            self._obey(*line.decode().split())

    def _obey(self, command: str, seconds: str = "0") -> None:
        now = time.monotonic()
        if command == "stop" and self.kill_at is None:
            self._signal_main(signal.SIGTERM)
            self.kill_at, self.stopping = now + float(seconds), True
        elif command == "kill":
            self.kill_at, self.stopping = now, True
        elif command == "agent":
            self._signal_main(signal.SIGKILL)

    def _signal_main(self, number: int) -> None:
        if not self.main_ended:
            guests.send(self.main, number)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.main:
                    self.main_ended = True
                    _tell("agent-exit", status=status)

    def _must_kill(self) -> bool:
        now = time.monotonic()
        if self.kill_at is None:
            if self.term_at is None or (now < self.term_at and not self.main_ended):
                return False
            for pid in self._processes():
                guests.send(pid, signal.SIGTERM)
            grace = _STRAGGLERS_GRACE if self.main_ended else self.order["grace"]
            self.kill_at = now + grace
        if now >= self.kill_at or (self.stopping and self.main_ended):
            return True
        return not self.stopping and not self._processes()

    def _patience(self) -> float:
        if self.kill_at is not None or self.term_at is not None:
            return 0.02
        if self.console_changed:
            return _CONSOLE_SECONDS
        return 0.1 if not self.main_ended else 5.0

    def _processes(self) -> list[int]:
        return guests.own_processes(self.uid, os.getpid())

    def _end_all(self) -> None:
        while left := self._living():
            if self.uid:
                guests.kill_user(self.uid)
                continue
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in left:
                    guests.send(pid, number)
            time.sleep(0.002)

    def _living(self) -> list[int]:
        self._reap()
        if self.output >= 0:
            self._read_output()
        return self._processes()


def become_guest(order: dict[str, Any], output: int) -> None:
    """Turn this fresh child into the guest's first process; does not return."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 4_096)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    set_limits(order)
    if order["hidden"]:
        guests.hide(order["hidden"])
    drop_privileges(order["uid"])
    os.umask(0o022)
    os.chdir(order["home"])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for _ in range(100):
        try:
            os.execve(order["argv"][0], order["argv"], order["environ"])  # noqa: S606
        except OSError as error:
            if error.errno != errno.ETXTBSY:  # another thread's fork still has the file open
                raise
        time.sleep(0.01)


def set_limits(order: dict[str, Any]) -> None:
    """Protect the host: no core files, no file over the volume's size, first to die of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"],) * 2)
    if order["uid"]:
        resource.setrlimit(resource.RLIMIT_NPROC, (order["processes"],) * 2)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


def drop_privileges(uid: int) -> None:
    """
    Give up everything that root has, for good.

    :raises PermissionError: the process would still be root.
    """
    if uid:
        for capability in range(64):
            if guests.prctl(guests.PR_CAPBSET_DROP, capability) != 0:
                break
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if 0 in os.getresuid():
        msg = "an instance never runs as root"
        raise PermissionError(msg)
    guests.prctl(guests.PR_SET_NO_NEW_PRIVS, 1)
    guests.prctl(guests.PR_SET_PDEATHSIG, signal.SIGKILL)


def _tell(event: str, **fields: object) -> None:
    line = json.dumps({"event": event, **fields}).encode() + b"\n"
    with suppress(OSError):  # a server that is gone is noticed at the end of stdin
        while line:
            line = line[os.write(1, line) :]


def detach() -> None:
    """Leave the server's session: Ctrl-C in a terminal is for the server alone."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def sweep(folder: str, state_file: str, server: str) -> None:
    """
    Wait for the server's end, however it ends, and delete what it leaves.

    Every instance deletes its own folder; this waits for them and takes the rest.
    """
    detach()
    while os.read(0, 4_096):
        pass
    deadline = time.monotonic() + _SWEEP_SECONDS
    while time.monotonic() < deadline and _instance_folders(folder):
        time.sleep(0.05)
    guests.remove_tree(folder)
    with suppress(OSError, ValueError), open(state_file, encoding="utf-8") as file:
        if json.load(file)["pid"] == int(server):
            os.unlink(state_file)


def _instance_folders(folder: str) -> list[str]:
    with suppress(OSError):
        return [name for name in os.listdir(folder) if name.startswith("i-")]
    return []


def try_to_hide() -> None:
    """Fail where ``guest_processes.hide`` would; the runner asks once."""
    guests.hide([])


def main() -> None:
    """Read the order and supervise; only the server's pipe ends a supervisor early."""
    detach()
    guests.prctl(guests.PR_SET_CHILD_SUBREAPER, 1)
    order = b""
    while not order.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        order += byte
    Supervisor(json.loads(order)).run()
