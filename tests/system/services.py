"""Processes that the demo and the tests start: each on a leash, each with a log of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.system.leash import descendants

LEASH = Path(__file__).with_name("leash.py")
CHECKOUT = Path(__file__).resolve().parents[2]
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
)
"""All that a service gets from the environment of the demo; no proxy: everything is local."""


class ServiceError(RuntimeError):
    """A service did not come up or did not answer."""


class Service:
    """
    One started command; ``stop`` ends it and everything that it started.

    One that ``stays`` may be killed alone: what it started lives on until ``stop``.
    """

    def __init__(self, name, command, environment, log, grace=4.0, *, stays=False):
        self.name = name
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._pid_file = self.log.with_suffix(".pid") if stays else None
        options = ["--stay", str(self._pid_file)] if stays else []
        leash = [sys.executable, "-I", "-S", str(LEASH), *options, str(grace), *command]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                leash, stdin=subprocess.PIPE, stdout=out, stderr=out, env=environment, cwd=CHECKOUT
            )

    @property
    def pid(self):
        """Process of a command that ``stays``; None when it has ended."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return pid if state[0] != "Z" and int(state[1]) == self._process.pid else None

    @property
    def has_ended(self):
        """Whether the command is over, killed or not; a leash that ``stays`` may be there still."""
        if self._pid_file is None or self.exit_status is not None:
            return self.exit_status is not None
        return self._pid_file.exists() and self.pid is None

    @property
    def descendants(self):
        """All living processes that came of the command."""
        return descendants(self._process.pid)

    def kill(self, number=signal.SIGKILL):
        """Send the command a signal, and nobody else; returns whether it was there."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)
        return pid is not None

    @property
    def exit_status(self):
        return self._process.poll()

    def must_run(self):
        if self.exit_status is not None:
            message = f"{self.name} ended with {self.exit_status}; {self.log}:\n{self.last_lines()}"
            raise ServiceError(message)

    def last_lines(self, count=15):
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:])

    def wait(self, seconds):
        """Wait for its own end; raises ServiceError when it fails or takes longer."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            message = f"{self.name} takes longer than {seconds:.0f}s; see {self.log}"
            raise ServiceError(message) from error
        if status:
            self.must_run()

    def let_go(self):
        """Begin to stop; returns at once."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def stop(self):
        self.let_go()
        self._process.wait()


def plain_environment(**more):
    """
    Return the environment of a service: a few names of ours, and what is given.

    The package is that of this checkout, wherever the environment has it installed from.
    """
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    kept["PYTHONPATH"] = str(CHECKOUT)
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "no_proxy": "*", **more}


def free_ports(count, first=0):
    """Find ports that nobody uses now; ``first`` is taken for the first one if it is free."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", 0 if number else first))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
        return found


def wait_until(look, seconds, what, services=()):
    """Call ``look`` until it returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        for service in services:
            service.must_run()
        if time.monotonic() > deadline:
            message = f"waited {seconds:.0f}s for {what}"
            raise ServiceError(message)
        time.sleep(0.1)
