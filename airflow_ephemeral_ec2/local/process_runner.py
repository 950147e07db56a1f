"""The runner of the users' laptops: an instance is a tree of ordinary processes."""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from airflow_ephemeral_ec2.local import guest_processes, supervisor
from airflow_ephemeral_ec2.local.guest_python import guest_python_folder, is_reachable
from airflow_ephemeral_ec2.local.instance_states import Event
from airflow_ephemeral_ec2.local.runner import Guest, Report
from airflow_ephemeral_ec2.local.user_data_parts import read_user_data
from airflow_ephemeral_ec2.local.user_ids import UserIdLease, lease_user_id

_POWER_COMMANDS = ("poweroff", "shutdown", "halt", "reboot", "systemctl", "init", "telinit")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_PROCESSES_PER_INSTANCE = 4_096
_SUPERVISE = "import sys; sys.path.append(sys.argv[1]); import supervisor; supervisor.main()"
_SWEEP = (
    "import sys; sys.path.append(sys.argv[1]); import supervisor; supervisor.sweep(*sys.argv[2:])"
)
_SCRIPTS = str(Path(supervisor.__file__).parent)
_TRY = "import sys; sys.path.append(sys.argv[1]); import supervisor; supervisor.try_to_hide()"
_POWER_SOCKETS = ("/run/dbus/system_bus_socket", "/run/systemd/private", "/run/initctl")
"""By these an ordinary user's program could ask the host to power off."""
MARK = "EPHEMERAL_EC2_LOCAL_INSTANCE"


@dataclass
class ProcessRunner:
    """
    Runs the shell script parts of user data as processes of this host.

    As root every instance is another unprivileged user; otherwise it is the server's own user.
    The boothook is never executed. ``grace`` is in seconds.
    """

    home: Path
    grace: float
    max_file_bytes: int | None = None
    state_file: Path | None = None
    """Deleted when the server dies without a word."""

    def __post_init__(self) -> None:
        self._other_user = os.geteuid() == 0
        self.folder = self._make_folder()
        self._hidden = [] if self._other_user else _hidden_sockets()
        self._python: Path | None = None
        self._python_lock = threading.Lock()
        self._guests: set[ProcessGuest] = set()
        self._closed = False
        self._sweeper = self._start_sweeper()

    def _make_folder(self) -> Path:
        self.home.mkdir(parents=True, exist_ok=True)
        # A private home is out of reach of instances that are other users.
        reachable = is_reachable(self.home) or not self._other_user
        # A name of its own: what cleans up after a killed server must not hit its successor.
        place = tempfile.mkdtemp(
            prefix="instances-" if reachable else "ephemeral-ec2-instances-",
            dir=self.home if reachable else None,
        )
        folder = Path(place)
        folder.chmod(0o711)
        return folder

    def _start_sweeper(self) -> "subprocess.Popen[bytes]":
        state_file = str(self.state_file.absolute()) if self.state_file else ""
        arguments = [str(self.folder), state_file, str(os.getpid())]
        return subprocess.Popen(  # noqa: S603 - our own interpreter and script
            [sys.executable, "-I", "-S", "-c", _SWEEP, _SCRIPTS, *arguments],
            stdin=subprocess.PIPE,
            env={},
            cwd="/",
        )

    def python_folder(self) -> Path:
        """Find or make the instances' Python; slow only the first time."""
        with self._python_lock:
            if self._python is None:
                place = self.folder / ".python"
                self._python = guest_python_folder(place, other_user=self._other_user)
            return self._python

    def start(self, guest: Guest, report: Report) -> "ProcessGuest":
        if self._closed:
            msg = "the local EC2 is stopping"
            raise OSError(msg)
        scripts = read_user_data(guest.user_data).scripts
        lease = lease_user_id() if self._other_user else None
        folder = self.folder / guest.instance_id
        running = ProcessGuest(self, folder, lease, report)
        self._guests.add(running)
        self._furnish(folder, scripts, lease.uid if lease else 0)
        running.launch(self._order(guest, folder, scripts, lease))
        return running

    def forget(self, running: "ProcessGuest") -> None:
        self._guests.discard(running)

    def close(self) -> None:
        self._closed = True
        for running in list(self._guests):
            running.kill()
        for running in list(self._guests):
            running.wait(10)
        with self._python_lock:
            guest_processes.remove_tree(str(self.folder))
        if self._sweeper.stdin:
            self._sweeper.stdin.close()
        self._sweeper.wait(10)

    def _furnish(self, folder: Path, scripts: tuple[bytes, ...], uid: int) -> None:
        folder.mkdir(mode=0o755)
        (folder / "bin").mkdir(mode=0o755)
        os.mkfifo(folder / "power")
        (folder / "power").chmod(0o622)
        shim = f'#!/bin/sh\necho "${{0##*/}} $*" >{folder}/power\n'
        for name in _POWER_COMMANDS:
            _write_program(folder / "bin" / name, shim.encode())
        for number, script in enumerate(scripts, start=1):
            _write_program(folder / f"part-{number:03d}", script)
        if len(scripts) != 1:
            parts = "\n".join(f"{folder}/part-{n:03d}" for n in range(1, len(scripts) + 1))
            _write_program(folder / "part-all", f"#!/bin/sh\n{parts}\n".encode())
        for name in ("home", "home/tmp"):
            (folder / name).mkdir(mode=0o700)
            if uid:
                os.chown(folder / name, uid, uid)

    def _order(
        self, guest: Guest, folder: Path, scripts: tuple[bytes, ...], lease: UserIdLease | None
    ) -> dict[str, object]:
        size = guest.volume_bytes
        return {
            "uid": lease.uid if lease else 0,
            "folder": str(folder),
            "home": str(folder / "home"),
            "power": str(folder / "power"),
            "argv": [str(folder / ("part-001" if len(scripts) == 1 else "part-all"))],
            "environ": self._environ(guest, folder),
            "grace": self.grace,
            "file_bytes": min(size, self.max_file_bytes) if self.max_file_bytes else size,
            "hidden": self._hidden,
            "processes": _PROCESSES_PER_INSTANCE,
        }

    def _environ(self, guest: Guest, folder: Path) -> dict[str, str]:
        return {
            "PATH": f"{folder}/bin:{self.python_folder()}:{_SYSTEM_PATH}",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "home" / "tmp"),
            "LANG": "C.UTF-8",
            "EPHEMERAL_EC2_POWEROFF": str(folder / "bin" / "poweroff"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": guest.imds_url,
            "AWS_ENDPOINT_URL": guest.api_url,
            MARK: guest.instance_id,
        }


class ProcessGuest:
    """One instance's processes, reached through its supervisor."""

    def __init__(
        self, runner: ProcessRunner, folder: Path, lease: UserIdLease | None, report: Report
    ) -> None:
        self._runner = runner
        self._folder = folder
        self._lease = lease
        self._report = report
        self._console = b""
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, order: Mapping[str, object]) -> None:
        locks = (self._lease.lock.fileno(),) if self._lease else ()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            [sys.executable, "-I", "-S", "-c", _SUPERVISE, _SCRIPTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=locks,
        )
        self._command(json.dumps(order))
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def stop(self, grace: float) -> None:
        self._command(f"stop {grace}")

    def kill(self) -> None:
        self._command("kill")

    def kill_agent(self) -> None:
        self._command("agent")

    def freeze(self, *, still: bool) -> None:
        """Stop all processes of this guest, its supervisor excepted, or let them go on."""
        number = signal.SIGSTOP if still else signal.SIGCONT
        name = self._folder.name
        found = (
            guest_processes.own_processes(self._lease.uid, 0)
            if self._lease
            else marked_processes(name)
        )
        for pid in found:
            guest_processes.send(pid, number)

    def console(self) -> bytes:
        return self._console

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        return self._ended.wait(seconds)

    def _command(self, line: str) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is None or self._ended.is_set():
            return
        try:
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # the supervisor has ended, its last word is on the way

    def _listen(self, events: IO[bytes]) -> None:
        clean = False
        for line in events:
            event = json.loads(line)
            if event["event"] == "console":
                self._console = base64.b64decode(event["data"])
            elif event["event"] == "power-off":
                self._report(Event.POWER_OFF)
            clean = clean or event["event"] == "gone"
        if not clean:
            self._clean_up_after_supervisor()
        self._close()

    def _clean_up_after_supervisor(self) -> None:
        """Somebody killed the supervisor: do its work here."""
        if self._lease:
            while guest_processes.own_processes(self._lease.uid, 0):
                guest_processes.kill_user(self._lease.uid)
        else:
            for pid in marked_processes(self._folder.name):
                guest_processes.send(pid, signal.SIGKILL)
        guest_processes.remove_tree(str(self._folder))

    def _close(self) -> None:
        if self._process:
            for stream in (self._process.stdin, self._process.stdout):
                if stream:
                    with suppress(BrokenPipeError):  # a command that came too late is still in it
                        stream.close()
            self._process.wait()
        if self._lease:
            self._lease.release()
        self._ended.set()
        self._runner.forget(self)
        self._report(Event.GONE)


def marked_processes(instance_id: str) -> list[int]:
    """Find processes by the mark in their environment (those that this user may look at)."""
    mark = f"{MARK}={instance_id}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
    return found


def _hidden_sockets() -> list[str]:
    """Return what to hide from instances; nothing where the kernel does not allow hiding."""
    found = [path for path in _POWER_SOCKETS if Path(path).exists()]
    asked = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-I", "-S", "-c", _TRY, _SCRIPTS], capture_output=True, check=False
    )
    return found if asked.returncode == 0 else []


def _write_program(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)
