"""What the machine says at the end: the report, the job's result, the console marker."""

# Pathlib costs bytes and 10 ms at start.
# ruff: noqa: PTH118, PTH123

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import stat
from hashlib import sha256
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import CONSOLE_MARKER, CONTRACT_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

RESULT_LIMIT = 4096
MARKER_TIMES = 3
FLAGS = ("oom", "timed_out", "interrupted", "disk_full")
_IN_MARKER = ("nonce", "phase", "exit_code", "signal", *FLAGS, "interrupted_by")
SPARE_BYTES = 16 << 20


def empty_report(config: Mapping[str, Any], agent_sha256: str) -> dict[str, Any]:
    """Return a report of nothing yet."""
    unknown = (
        "instance_id exit_code signal error lock_at code_at started_at ended_at wall_seconds "
        "cpu_seconds peak_memory_bytes disk_used_bytes result result_error interrupted_by"
    )
    return {
        "v": CONTRACT_VERSION,
        **{name: config[name] for name in ("jobkey", "attempt", "nonce")},
        **dict.fromkeys(unknown.split()),
        **dict.fromkeys(FLAGS, False),
        "log": {"chunks": 0, "bytes": 0, "dropped_bytes": 0},
        "agent_sha256": agent_sha256,
    }


def console_marker(report: Mapping[str, Any]) -> str:
    """Return the line for the console: enough of the report to judge by, and a checksum."""
    facts = {name: report[name] for name in _IN_MARKER}
    facts["error"] = report["error"] and report["error"]["kind"]
    text = compact(facts)
    return f"{CONSOLE_MARKER} {text} {sha256(text.encode()).hexdigest()[:16]}"


def compact(value: object) -> str:
    return json.dumps(
        value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False
    )


def encode(value: object) -> bytes:
    """Return compact JSON; half a surrogate pair stays the escape that it was."""
    return compact(value).encode("utf-8", "backslashreplace")


def read_result(path: str) -> tuple[object, str | None]:
    """Return the job's result and what is wrong with it; a link or a pipe is not followed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, None
    except OSError as e:
        return None, f"cannot be opened: {errno.errorcode.get(e.errno or 0)}"
    with open(handle, "rb") as file:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            return None, "not a plain file"
        if facts.st_size > RESULT_LIMIT:
            return None, f"{facts.st_size:,} bytes, {RESULT_LIMIT:,} allowed"
        try:
            result = json.loads(file.read(RESULT_LIMIT))
            encode(result)
        except (ValueError, RecursionError):
            return None, "not JSON"
        return result, None


def disk(folder: str, volume_bytes: int, *, shared: bool) -> tuple[int, bool]:
    """Return bytes used and whether the disk is full.

    ``shared``: the folder has no filesystem of its own (a local EC2), so its apparent size counts
    against ``volume_bytes``. A file that reached RLIMIT_FSIZE says the same.
    """
    facts = os.statvfs(folder)
    used, free = facts.f_blocks - facts.f_bfree, facts.f_bavail * facts.f_frsize
    if not shared:
        size = facts.f_blocks * facts.f_frsize
        return used * facts.f_frsize, free < max(size // 100, SPARE_BYTES)
    sizes = [0]
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append(os.lstat(os.path.join(path, name)).st_size)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return sum(sizes), sum(sizes) >= volume_bytes * 0.95 or 0 <= limit <= max(sizes)
