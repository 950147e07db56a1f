"""The end of the machine: poweroff, then force, then the kernel's own switch. Never halt.

``EPHEMERAL_EC2_POWEROFF`` (a path, or a JSON list) replaces all of it: a local EC2 ends its
processes with it and must not be able to end its host.
"""

# The commands are the job and ours.
# ruff: noqa: S603

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

VARIABLE = "EPHEMERAL_EC2_POWEROFF"
SYSRQ = "echo o >/proc/sysrq-trigger"
NO_DEPENDENCIES = "DefaultDependencies=no"
TIMER = (
    "systemd-run", "--no-block", "--on-active=45", "--timer-property=" + NO_DEPENDENCIES,
    "--property=" + NO_DEPENDENCIES, "/bin/sh", "-c",
    "systemctl --force poweroff; sleep 30; " + SYSRQ,
)  # fmt: skip
"""Armed first: it outlives this process, which must not hold up the way down."""
LADDER = (
    ("systemctl", "poweroff"),
    ("poweroff",),
    ("poweroff", "-f"),
    ("/bin/sh", "-c", SYSRQ),
)
STEP_SECONDS = 60.0


def _run(argv: Sequence[str]) -> int:
    try:
        return subprocess.run(argv, check=False, timeout=30).returncode
    except (OSError, subprocess.SubprocessError):
        return 1


def power_off(
    environ: Mapping[str, str],
    run: Callable[[Sequence[str]], int] = _run,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End the machine; returns only where it cannot, or through the replacement command."""
    replacement = environ.get(VARIABLE)
    if replacement:
        run(json.loads(replacement) if replacement.startswith("[") else [replacement])
        return
    run(TIMER)
    for argv in LADDER:
        if run(argv) == 0:
            if argv[0] == "systemctl":
                return
            sleep(STEP_SECONDS)
