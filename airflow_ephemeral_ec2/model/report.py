"""The machine's own words: the report in the bucket, the marker on the console."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from airflow_ephemeral_ec2 import contract

PHASES = frozenset(
    {
        contract.PHASE_CREDENTIALS,
        contract.PHASE_LOCK,
        contract.PHASE_SUPERSEDED,
        contract.PHASE_CODE,
        contract.PHASE_SECRETS,
        contract.PHASE_PRE_COMMAND,
        contract.PHASE_JOB,
    }
)

WITHOUT_LOCK = frozenset(
    {contract.PHASE_CREDENTIALS, contract.PHASE_LOCK, contract.PHASE_SUPERSEDED}
)
"""Who reports from here did not have the start lock: another machine of the attempt may have it."""


@dataclass(frozen=True)
class Report:
    """The machine's own words, checked against the attempt; see ``docs/job-contract.md``."""

    phase: str
    exit_code: int | None
    signal: int | None
    oom: bool
    timed_out: bool
    interrupted: bool
    interrupted_by: str
    """``spot``, or empty: nobody said."""
    disk_full: bool
    error_kind: str
    error_message: str
    fields: Mapping[str, Any]
    """The whole report, for the history."""
    is_from_console: bool = False
    """No report arrived; these are the words of the console marker."""

    @property
    def locked_at(self) -> float | None:
        """When its machine says that it took the start lock, in seconds since 1970."""
        try:
            return datetime.fromisoformat(self.fields["lock_at"]).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    @property
    def had_lock(self) -> bool:
        """Whether its machine had the start lock, and so was the one that might run the work."""
        return self.phase not in WITHOUT_LOCK


@dataclass(frozen=True)
class Expected:
    """What a report must name to be believed."""

    jobkey: str
    attempt: int
    nonce: str
    instance_id: str


def read_report(body: bytes | None, expected: Expected) -> Report | str | None:
    """
    Read a report: None when absent, a sentence when it cannot be believed.

    Nonce, job, attempt and instance must be ours, or somebody else wrote it.
    """
    if body is None:
        return None
    try:
        found = json.loads(body)
        named = (found["jobkey"], found["attempt"], found["nonce"], found["instance_id"])
        error = found.get("error") or {}
        kind, text = str(error.get("kind", "")), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "the report cannot be read"
    wanted = (expected.jobkey, expected.attempt, expected.nonce, expected.instance_id)
    if named != wanted:
        return "the report names another job, attempt, nonce or instance"
    if found.get("v", contract.CONTRACT_VERSION) != contract.CONTRACT_VERSION:
        return f"the report has schema version {found['v']!r:.20}, not {contract.CONTRACT_VERSION}"
    if not _is_well_formed(found):
        return "the report has fields of the wrong type"
    return _report(found, kind, text)


def _is_well_formed(found: Mapping[str, Any]) -> bool:
    """Whether every field that decides is what the agent writes: JSON's false is not exit 0."""
    numbers = (found.get("exit_code"), found.get("signal"))
    return all(n is None or type(n) is int for n in numbers) and found.get("phase") in PHASES


def _report(found: Mapping[str, Any], kind: str, text: str, *, console: bool = False) -> Report:
    return Report(
        phase=str(found.get("phase")),
        exit_code=found.get("exit_code"),
        signal=found.get("signal"),
        oom=bool(found.get("oom")),
        timed_out=bool(found.get("timed_out")),
        interrupted=bool(found.get("interrupted")),
        interrupted_by=str(found.get("interrupted_by") or ""),
        disk_full=bool(found.get("disk_full")),
        error_kind=kind,
        error_message=text,
        fields=found,
        is_from_console=console,
    )


def read_marker(console: str, nonce: str) -> Report | None:
    """
    Find the agent's last words in the console output: a line with our nonce and its checksum.

    Only root of the machine writes to its console, and the nonce is in no other place that the
    job can read. The kernel may drop or mix lines: one whole line of the three is enough.
    """
    for line in console.splitlines():
        _, _, text = line.partition(f"{contract.CONSOLE_MARKER} ")
        body, _, checksum = text.strip().rpartition(" ")
        if not body or sha256(body.encode()).hexdigest()[:16] != checksum:
            continue
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("nonce") == nonce and _is_well_formed(found):
            kind = str(found.get("error") or "")
            return _report(found, kind, "the report did not arrive", console=True)
    return None
