"""What a job finds around it: its variables, and who it is."""

# Pathlib costs bytes and 10 ms at start; the commands are the job and ours.
# ruff: noqa: S603

from __future__ import annotations

import pwd
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONTRACT_NAMES = ("payer", "job", "attempt", "array_index", "array_size", "jobkey", "bucket")
USER = "ephemeral-ec2"
NOBODY = "nobody"
LOCAL_MARK = "EPHEMERAL_EC2_LOCAL_INSTANCE"
"""By this variable a local EC2 finds the processes of an instance."""


def job_environment(
    config: Mapping[str, Any], environ: Mapping[str, str], work: str
) -> dict[str, str]:
    """Return the job's variables: defaults, the row's ``env``, then the contract's own."""
    given = {"EPHEMERAL_" + name.upper(): config[name] for name in CONTRACT_NAMES}
    given["EPHEMERAL_BUSINESS_DATE"] = config["date"]
    given["EPHEMERAL_ENVIRONMENT"] = config["env"]
    given["AWS_REGION"] = given["AWS_DEFAULT_REGION"] = config["region"]
    given["AWS_EC2_METADATA_DISABLED"] = "true"
    passed = ("AWS_ENDPOINT_URL", LOCAL_MARK)
    given.update((name, environ[name]) for name in passed if name in environ)
    return {
        "PATH": environ.get("PATH") or PATH,
        "LANG": "C.UTF-8",
        "HOME": work,
        "TMPDIR": work,
        # Buffered output would reach the log late, and not at all after a SIGKILL.
        "PYTHONUNBUFFERED": "1",
        **config["environ"],
        **{name: str(value) for name, value in given.items()},
    }


def job_user() -> str:
    """Return an unprivileged user of the machine, made now if need be."""
    command = ["useradd", "--system", USER]
    try:
        subprocess.run(command, check=False, capture_output=True, timeout=30)
        pwd.getpwnam(USER)
    except (OSError, KeyError, subprocess.SubprocessError):
        return NOBODY
    return USER
