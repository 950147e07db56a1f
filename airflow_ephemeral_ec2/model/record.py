"""The outcome record: what the bucket, the XCom and the failure message say about an attempt."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from airflow_ephemeral_ec2.model.duration import format_duration
from airflow_ephemeral_ec2.model.order import NOTHING_STALE, Staleness, describe_staleness
from airflow_ephemeral_ec2.model.outcome import Budget, Outcome, Verdict
from airflow_ephemeral_ec2.model.plan import LaunchRecord
from airflow_ephemeral_ec2.model.queue import QueueEntry
from airflow_ephemeral_ec2.model.spec import JobSpec, Spec

GIB = 1024**3


class Machine(Spec):
    """The machine that was given."""

    instance_id: str
    arn: str
    instance_type: str
    availability_zone: str
    capacity_type: str
    state_reason: str = ""
    vcpus: int | None = None
    memory_mib: int | None = None


class Times(Spec):
    """Seconds since 1970 by the bucket's clock; empty where a step was not reached."""

    requested: float
    admitted: float | None = None
    launched: float | None = None
    lock: str | None = None
    """By the machine, ISO 8601."""
    code: str | None = None
    """When the code was verified and unpacked."""
    started: str | None = None
    ended: str | None = None
    detected: float | None = None


UNKNOWN = "unknown"


class OutcomeRecord(Spec):
    """How an attempt ended; written once, no job output in it."""

    version: Literal[1] = 1
    title: str
    payer: str
    job: str
    business_date: str
    jobkey: str
    attempt: int
    epoch: str
    array_index: int
    outcome: Outcome
    reason: str
    budget: Budget
    exit_code: int | None = None
    signal: int | None = None
    seconds: float | None = None
    """Wall time of the command."""
    asked: str
    """The placements of the row, best first."""
    machine: Machine | None = None
    times: Times
    report_uri: str | None = None
    is_from_console: bool = False
    """No report arrived: the exit status is the one of the console marker."""
    console_uri: str | None = None
    log_uri: str | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    log_dropped_bytes: int = 0
    result: Any = None
    result_error: str | None = None
    makes_stale: tuple[str, ...] = ()
    """Jobs with a success for this date that was made of what this attempt has written again."""
    stale_inputs: tuple[str, ...] = ()
    """What it depends on and what was written again after its launch, or was stale."""

    @property
    def exit_text(self) -> str:
        """``exit 65`` or ``no exit status``."""
        return "no exit status" if self.exit_code is None else f"exit {self.exit_code}"


def write_verdict(verdict: Verdict | None) -> dict[str, str]:
    """Write a verdict into a kill request or a revoked lock, beside its reason; nothing for None."""
    if verdict is None:
        return {}
    return {"outcome": verdict.outcome.value, "budget": verdict.budget.value}


def read_verdict(found: Mapping[str, Any], reason: str | None) -> Verdict | None:
    """Read what ``write_verdict`` wrote; None where there is none or it is none of ours."""
    try:
        return Verdict(Outcome(found["outcome"]), reason or "", Budget(found["budget"]))
    except (KeyError, ValueError):
        return None


def conclude(
    record: LaunchRecord,
    verdict: Verdict,
    times: Times,
    machine: Machine | None = None,
    fields: dict[str, Any] | None = None,
    *,
    root: str = "",
    is_from_console: bool = False,
    has_console: bool = False,
    staleness: Staleness = NOTHING_STALE,
) -> OutcomeRecord:
    """
    Write the outcome record.

    :param fields: the machine's report, empty when there is none
    :param root: ``s3://bucket/key/prefix/`` of the machine
    :param is_from_console: the fields are those of the console marker
    :param has_console: the console output is kept beside the log
    :param staleness: which successes are older than what they read, from now on
    """
    found = fields or {}
    result, result_error = _keep_result(found, is_wanted=record.spec.push_result)
    return OutcomeRecord(
        title=record.title,
        payer=record.spec.payer,
        job=record.spec.job,
        business_date=record.business_date,
        jobkey=record.jobkey,
        attempt=record.attempt,
        epoch=record.epoch,
        array_index=record.array_index,
        outcome=verdict.outcome,
        reason=verdict.reason,
        budget=verdict.budget,
        exit_code=found.get("exit_code"),
        signal=found.get("signal"),
        seconds=found.get("wall_seconds"),
        asked=", ".join(record.spec.instance_types),
        machine=machine,
        times=times.model_copy(
            update={
                "lock": found.get("lock_at"),
                "code": found.get("code_at"),
                "started": found.get("started_at"),
                "ended": found.get("ended_at"),
            }
        ),
        report_uri=f"{root}report.json" if fields and not is_from_console else None,
        is_from_console=is_from_console,
        console_uri=f"{root}console.txt" if has_console else None,
        log_uri=f"{root}log/" if machine else None,
        peak_memory_bytes=found.get("peak_memory_bytes"),
        cpu_seconds=found.get("cpu_seconds"),
        log_dropped_bytes=(found.get("log") or {}).get("dropped_bytes", 0),
        result=result,
        result_error=result_error,
        makes_stale=tuple(map(str, staleness.makes_stale)),
        stale_inputs=tuple(map(str, staleness.stale_inputs)),
    )


def conclude_tampered(
    name: str, entry: QueueEntry | None, reason: str, now: float
) -> OutcomeRecord:
    """Write the outcome of an attempt of which something cannot be read, with what can be."""
    jobkey, _, number = name.rpartition("-a")
    return OutcomeRecord(
        title=entry.title if entry else name,
        payer=entry.payer if entry else UNKNOWN,
        job=entry.job if entry else UNKNOWN,
        business_date=entry.business_date if entry else UNKNOWN,
        jobkey=jobkey,
        attempt=int(number),
        epoch="",
        array_index=0,
        outcome=Outcome.TAMPERED,
        reason=reason,
        budget=Budget.NONE,
        asked="",
        times=Times(requested=entry.requested_at if entry else now, detected=now),
    )


def _keep_result(fields: dict[str, Any], *, is_wanted: bool) -> tuple[Any, str | None]:
    """Take the job's result if the row wants it and it can be written down again as JSON."""
    if not is_wanted:
        return None, None
    result = fields.get("result")
    try:
        TypeAdapter(Any).dump_json(result)
    except (ValueError, RecursionError):
        return None, "not JSON that can be kept: nested too deep, or not Unicode"
    return result, fields.get("result_error")


def describe_ending(record: OutcomeRecord) -> str:
    """Say how the attempt ended: the last line of the task log and the start of the error."""
    parts = [record.outcome.replace("_", " ")]
    if record.exit_text not in record.reason:
        parts.append(record.exit_text)
    parts.append(record.reason)
    text = ", ".join(parts)
    if record.seconds is not None:
        text += f" after {format_duration(record.seconds)}"
    if record.machine is not None:
        text += f" on {record.machine.instance_id} ({record.machine.instance_type}, terminated)"
    return text


DOCUMENTED_EXIT_CODES = frozenset({1, 65, 66, 75, 126, 127, 137})


def name_anchor(outcome: Outcome, exit_code: int | None) -> str:
    """Name the paragraph of docs/outcomes.md that says what to do."""
    if outcome is Outcome.JOB_FAILED and exit_code in DOCUMENTED_EXIT_CODES:
        return f"exit-{exit_code}"
    return outcome.replace("_", "-")


def describe_failure(record: OutcomeRecord, next_step: str) -> str:
    """Say what happened, whether it is tried again, and where to look; free of PHI."""
    text = f"{record.title}: {describe_ending(record)}. {next_step}"
    if record.log_uri:
        text += f" Log: {record.log_uri}."
    if record.console_uri:
        text += f" Console: {record.console_uri}."
    return f"{text} What to do: docs/outcomes.md#{name_anchor(record.outcome, record.exit_code)}"


def describe_story(record: OutcomeRecord, log_policy: str = "none") -> list[str]:
    """Tell what happened on the machine, line by line, for the task log."""
    lines = []
    if record.times.lock:
        code = ", code verified" if record.times.code else ""
        after = _after(record.times.launched, record.times.lock)
        lines.append(f"running: start lock taken{code}{after}")
    if record.log_uri:
        copied = "" if log_policy == "all" else f" (log_to_airflow={log_policy})"
        lines.append(f"log: {record.log_uri}{copied}")
    if record.seconds is not None:
        lasted = format_duration(record.seconds)
        lines.append(f"ended: {record.exit_text} after {lasted}{_usage(record)}")
    if record.is_from_console:
        lines.append(f"no report arrived; the console says {record.exit_text}")
    if record.log_dropped_bytes:
        lines.append(f"log capped: {record.log_dropped_bytes:,} bytes dropped")
    if record.result_error:
        lines.append(f"result not taken: {record.result_error}")
    if record.machine is not None:
        reason = record.machine.state_reason or "no reason given"
        lines.append(f"gone: {record.machine.instance_id} terminated ({reason})")
    return lines + describe_staleness(record.job, record.makes_stale, record.stale_inputs)


def _after(launched: float | None, moment: str) -> str:
    if launched is None:
        return ""
    seconds = max(datetime.fromisoformat(moment).timestamp() - launched, 0.0)
    return f"; {format_duration(seconds)} after launch"


def _usage(record: OutcomeRecord) -> str:
    """``; peak 41.0 of 128 GiB, 58.2 of 64 vCPU busy``, as far as the machine could measure it."""
    machine, parts = record.machine, []
    if record.peak_memory_bytes is not None:
        size = f" of {machine.memory_mib / 1024:g}" if machine and machine.memory_mib else ""
        parts.append(f"peak {record.peak_memory_bytes / GIB:.1f}{size} GiB")
    if record.cpu_seconds is not None and record.seconds:
        size = f" of {machine.vcpus}" if machine and machine.vcpus else ""
        parts.append(f"{record.cpu_seconds / record.seconds:.1f}{size} vCPU busy")
    return "; " + ", ".join(parts) if parts else ""


def xcom_of(record: OutcomeRecord) -> dict[str, Any]:
    """Choose what the task's XCom holds: where everything is, and no job output but the result."""
    machine = record.machine
    value: dict[str, Any] = {
        "payer": record.payer,
        "job": record.job,
        "business_date": record.business_date,
        "jobkey": record.jobkey,
        "attempt": record.attempt,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "exit_code": record.exit_code,
        "seconds": record.seconds,
        "instance_id": machine.instance_id if machine else None,
        "instance_type": machine.instance_type if machine else None,
        "log": record.log_uri,
        "report": record.report_uri,
    }
    stale = {"makes_stale": record.makes_stale, "stale_inputs": record.stale_inputs}
    value |= {word: list(keys) for word, keys in stale.items() if keys}
    return value | ({"result": record.result} if record.result is not None else {})


def may_copy_log(spec: JobSpec, outcome: Outcome) -> bool:
    """Decide whether the row lets the job's output into the task log: it may hold PHI."""
    if spec.log_to_airflow == "on_failure":
        return outcome is not Outcome.SUCCEEDED
    return spec.log_to_airflow == "all"
