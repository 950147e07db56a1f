"""Evidence about an attempt -> one outcome with a reason."""

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.model.exit_codes import name_meaning
from airflow_ephemeral_ec2.model.outcome import (
    BY_API,
    KILL_STOPPED,
    Budget,
    Kill,
    Observation,
    Outcome,
    StartLock,
    Verdict,
    gives_up,
)
from airflow_ephemeral_ec2.model.report import Report
from airflow_ephemeral_ec2.model.spec import JobSpec


def judge(
    spec: JobSpec,
    observation: Observation,
    report: Report | str | None,
    lock: StartLock | None,
    kill: Kill | None,
    marker: Report | None = None,
) -> Verdict | None:
    """
    Conclude, or return None while a machine of the attempt may be alive.

    Never success without a valid report, and never an ending before the machine is dead.

    :param marker: the console's words, where they were read; they stand in for a missing report
        and must not contradict one that is there
    """
    if not observation.is_dead:
        return None
    if isinstance(report, str):
        return Verdict(Outcome.TAMPERED, report)
    fault = _find_lock_fault(observation, report or marker, lock) or _find_kill_fault(kill)
    if fault is not None:
        return Verdict(Outcome.TAMPERED, fault)
    if report is not None and marker is not None and _contradict(report, marker):
        reason = f"the report says {_words(report)}, the console says {_words(marker)}"
        return Verdict(Outcome.CHANNEL_CONFLICT, reason)
    words = report or marker
    if words is None or words.phase == contract.PHASE_SUPERSEDED:
        return _judge_silence(observation, lock, kill)
    return _judge_words(spec, observation, words, kill)


def _judge_words(
    spec: JobSpec, observation: Observation, report: Report, kill: Kill | None
) -> Verdict:
    if report.phase == contract.PHASE_JOB:
        return _judge_job(spec, observation, report, kill)
    if report.interrupted:
        return _judge_interruption(observation, report, kill)
    return _judge_setup(report, spec)


def _find_lock_fault(
    observation: Observation, report: Report | None, lock: StartLock | None
) -> str | None:
    """Say why the start lock lets nothing be believed; one that is not there says nothing."""
    if lock is None:
        return None
    is_taken_by_other = lock.instance_id not in (None, observation.instance_id)
    if is_taken_by_other and report is not None and report.had_lock:
        return "the start lock names another instance than the report"
    return lock.fault or None


def _find_kill_fault(kill: Kill | None) -> str | None:
    """Say why a kill request cannot be believed."""
    return kill.by if kill is not None and kill.reason == "tampered" else None


def _contradict(report: Report, marker: Report) -> bool:
    return (report.phase, report.exit_code) != (marker.phase, marker.exit_code)


def _words(report: Report) -> str:
    code = report.exit_code
    return f"exit {code}" if code is not None else f"no exit status in phase {report.phase}"


def _judge_job(
    spec: JobSpec, observation: Observation, report: Report, kill: Kill | None
) -> Verdict:
    code = report.exit_code
    if code is None:
        return Verdict(Outcome.TAMPERED, "the report has no exit code")
    # A job that was told to stop and exits 0 has saved its work, not done it.
    if code in spec.success_exit_codes and not (report.timed_out or report.interrupted):
        return Verdict(Outcome.SUCCEEDED, f"exit {code}")
    if report.timed_out:
        return Verdict(Outcome.JOB_TIMEOUT, "ran longer than max_runtime and was stopped")
    if report.oom:
        return Verdict(Outcome.JOB_OOM, "out of memory; choose a type with more memory")
    if report.interrupted:
        return _judge_interruption(observation, report, kill)
    if report.disk_full:
        return Verdict(Outcome.JOB_FAILED, f"exit {code}, disk full; raise volume_gib")
    if code in spec.skip_exit_codes:
        return Verdict(Outcome.SKIPPED, f"exit {code}")
    budget = Budget.JOB if code in spec.retry_exit_codes else Budget.NONE
    return Verdict(Outcome.JOB_FAILED, f"exit {code}{name_meaning(code)}", budget)


def _judge_interruption(observation: Observation, report: Report, kill: Kill | None) -> Verdict:
    """Judge a machine that was told to end and did; why, EC2 knows only in part."""
    code, kill = _why_it_ended(observation, kill)
    if kill is not None:
        return _judge_kill(kill)
    if report.interrupted_by == contract.BY_SPOT:
        # The agent powers off within the two minutes of the notice: EC2's own reason is that.
        reason = "EC2 gave notice that it takes the spot machine back"
        return Verdict(Outcome.SPOT_INTERRUPTED, reason, Budget.INFRA)
    if code.startswith("Server.Spot"):
        return Verdict(Outcome.SPOT_INTERRUPTED, "EC2 took the spot machine back", Budget.INFRA)
    if code == "Client.UserInitiatedShutdown":
        return Verdict(Outcome.KILLED, "terminated through the EC2 API, not by us")
    when = "while the job ran" if report.phase == contract.PHASE_JOB else "before the job began"
    return Verdict(Outcome.INFRA_FAILED, f"the machine was shut down {when}", Budget.INFRA)


def _why_it_ended(observation: Observation, kill: Kill | None) -> tuple[str, Kill | None]:
    """We terminate what somebody has stopped; why it stopped is what counts then."""
    if kill is not None and kill.reason == KILL_STOPPED:
        return kill.by, None
    return observation.reason_code, kill


def _judge_setup(report: Report, spec: JobSpec) -> Verdict:
    if report.phase == contract.PHASE_PRE_COMMAND:
        code = report.exit_code
        budget = Budget.JOB if code in spec.retry_exit_codes else Budget.NONE
        return Verdict(Outcome.SETUP_FAILED, f"pre_command ended with exit {code}", budget)
    reason = f"{report.phase}: {report.error_kind}: {report.error_message}"
    passing = report.error_kind == contract.ERROR_NETWORK
    return Verdict(Outcome.SETUP_FAILED, reason, Budget.INFRA if passing else Budget.NONE)


def _judge_kill(kill: Kill) -> Verdict:
    if kill.verdict is not None:
        return kill.verdict
    match kill.reason:
        case "timeout":
            return Verdict(Outcome.JOB_TIMEOUT, "the machine outlived its deadline")
        case "boot_timeout":
            reason = "the command was not started within boot_timeout"
            return Verdict(Outcome.BOOT_TIMEOUT, reason, Budget.INFRA)
        case "superseded":
            return Verdict(Outcome.SUPERSEDED, "a newer attempt took over")
        case "stuck_pending":
            reason = "EC2 left the machine pending for more than 10 minutes"
            return Verdict(Outcome.INFRA_FAILED, reason, Budget.INFRA)
        case "tampered":
            return Verdict(Outcome.TAMPERED, kill.by)
        case "impaired":
            reason = "the host was impaired for more than 10 minutes; the machine left no report"
            return Verdict(Outcome.LOST_STATUS, reason)
        case _:
            by = f" by {kill.by}" if kill.by else ""
            return Verdict(Outcome.KILLED, f"{kill.reason}{by}")


def judge_unlaunched(kill: Kill) -> Verdict:
    """
    Conclude an attempt that was killed and has no machine that began its work.

    A kill of the controller's own is of a machine that it saw, should the queue state be lost since.
    """
    if kill.verdict is None and gives_up(kill.reason) and kill.reason != "superseded":
        return Verdict(Outcome.KILLED, f"{kill.reason} before it was launched")
    if kill.reason not in (KILL_STOPPED, "impaired"):
        return _judge_kill(kill)
    free = StartLock(None, revoked=kill.reason)
    return _judge_silence(Observation("", "gone"), free, kill)


def judge_revocation(lock: StartLock) -> Verdict:
    """Conclude an attempt whose start lock was revoked before any machine began its work."""
    return lock.verdict or _judge_kill(Kill(lock.revoked or "cancelled"))


def _judge_silence(observation: Observation, lock: StartLock | None, kill: Kill | None) -> Verdict:
    code, kill = _why_it_ended(observation, kill)
    if code.startswith("Server.Spot"):
        return Verdict(Outcome.SPOT_INTERRUPTED, "EC2 took the spot machine back", Budget.INFRA)
    if kill is not None and kill.reason == "impaired" and lock and lock.revoked:
        reason = "the host was impaired for more than 10 minutes; the work had not begun"
        return Verdict(Outcome.INFRA_FAILED, reason, Budget.INFRA)
    if kill is not None:
        return _judge_kill(kill)
    by_ec2 = _judge_state_reason(code)
    if by_ec2 is not None:
        return by_ec2
    # We revoke the free lock of a stopped machine: that is not why it stopped.
    if lock is None or lock.revoked == KILL_STOPPED:
        reason = f"the machine ended before it took the start lock ({code or 'no reason given'})"
        return Verdict(Outcome.NEVER_STARTED, reason, Budget.INFRA)
    if lock.revoked is not None:
        return judge_revocation(lock)
    reason = f"the machine ended without a report ({code or 'no reason given'})"
    return Verdict(Outcome.LOST_STATUS, reason)


def _judge_state_reason(code: str) -> Verdict | None:
    """Read ``StateReason.Code`` (EC2 API reference, StateReason)."""
    if code.startswith("Server."):
        return Verdict(Outcome.INFRA_FAILED, f"EC2 lost the machine ({code})", Budget.INFRA)
    if code in ("Client.InternalError", "Client.InvalidSnapshot.NotFound"):
        reason = f"EC2 could not start the machine ({code}); check KMS key, AMI and snapshot"
        return Verdict(Outcome.BAD_CONFIG, reason)
    if code == "Client.VolumeLimitExceeded":
        return Verdict(Outcome.QUOTA, f"EBS quota reached ({code})", Budget.INFRA)
    if code in BY_API:
        return Verdict(Outcome.KILLED, "terminated through the EC2 API, not by us")
    return None
