"""Where user data starts the agent: one blob in, a machine that is gone at the end."""

# Pathlib costs bytes and 10 ms at start.
# ruff: noqa: PTH109, PTH112, PTH123

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import threading
import zlib

from airflow_ephemeral_ec2.agent.clock import Clock
from airflow_ephemeral_ec2.agent.imds import DEFAULT_ENDPOINT, Imds
from airflow_ephemeral_ec2.agent.poweroff import VARIABLE, power_off
from airflow_ephemeral_ec2.agent.report import MARKER_TIMES, console_marker
from airflow_ephemeral_ec2.agent.supervisor import Supervisor

HOME = "/var/lib/ephemeral-ec2"


def main(blob: str, agent_sha256: str) -> None:
    """Run the attempt that the blob (base64 of zlib of the JSON config) describes, and end the machine."""
    environ = dict(os.environ)
    try:
        local = VARIABLE in environ
        systemd = not local and os.path.isdir("/run/systemd/system")
        home = os.getcwd() if local else HOME
        supervisor = Supervisor(
            json.loads(zlib.decompress(base64.b64decode(blob))),
            environ,
            Imds(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or DEFAULT_ENDPOINT),
            Clock(),
            home,
            systemd=systemd,
            agent_sha256=agent_sha256,
        )
        _on_sigterm(supervisor)
        try:
            supervisor.run()
            supervisor.send_report()
        finally:
            _tell_console("\n" + console_marker(supervisor.report) + "\n", systemd=systemd)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        power_off(environ)


def _on_sigterm(supervisor: Supervisor) -> None:
    """Have a thread call ``stop``: a signal handler may not take the locks of an event."""
    receive, send = os.pipe()
    os.set_blocking(send, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(send)

    def wait() -> None:
        os.read(receive, 1)
        supervisor.stop()

    threading.Thread(target=wait, daemon=True).start()


def _tell_console(text: str, *, systemd: bool) -> None:
    """Print several times: the kernel's console may lose or mix lines."""
    with contextlib.suppress(OSError):
        sys.stdout.write(text * MARKER_TIMES)
        sys.stdout.flush()
    if systemd:
        with contextlib.suppress(OSError), open("/dev/console", "w") as console:
            console.write(text * MARKER_TIMES)
