"""Collect the evidence about a dead machine, and write an attempt's ending down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import machine_prefix
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.judging import judge
from airflow_ephemeral_ec2.model.order import NOTHING_STALE
from airflow_ephemeral_ec2.model.record import Machine, Times, conclude
from airflow_ephemeral_ec2.model.report import Expected, Report, read_report

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.order import Staleness
    from airflow_ephemeral_ec2.model.outcome import Kill, Observation, StartLock, Verdict
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.spec import JobSpec


@dataclass(frozen=True)
class AdmissionTimes:
    """When an attempt was admitted and launched (seconds since 1970), as far as it came."""

    admitted: float | None
    launched: float | None


@dataclass(frozen=True)
class Evidence:
    """What the bucket knows about a dead machine."""

    report: Report | str | None
    lock: StartLock | None = None
    kill: Kill | None = None

    def other_holder(self, observation: Observation) -> str | None:
        """Return the instance that holds the start lock, when it is another one."""
        if isinstance(self.report, Report) and self.report.had_lock:
            return None  # then one of the two is not ours: nobody is followed
        holder = self.lock.instance_id if self.lock else None
        return None if holder == observation.instance_id else holder

    @property
    def is_lock_free(self) -> bool:
        """Whether nobody has the lock, and the dead machine's report does not say that it had."""
        if self.lock is not None or self.report is None:
            return False
        return isinstance(self.report, str) or not self.report.had_lock

    @property
    def holder_arn(self) -> str | None:
        """ARN of the instance that holds the start lock, as it says itself."""
        return (self.lock.arn if self.lock else "") or None

    def judge(
        self, spec: JobSpec, observation: Observation, marker: Report | None = None
    ) -> Verdict | None:
        return judge(spec, observation, self.report, self.lock, self.kill, marker)


def collect_evidence(store: JobStore, record: LaunchRecord, observation: Observation) -> Evidence:
    """
    Read what a dead machine left in the bucket.

    :raises AwsError: the bucket cannot be read now; nothing is concluded from that
    """
    expected = Expected(record.jobkey, record.attempt, record.nonce, observation.instance_id)
    body = store.read_report(observation.arn) if observation.arn else None
    report = read_report(body, expected)
    lock = store.read_start_lock(record)
    return Evidence(report, lock, store.read_kill(entry_name(record.jobkey, record.attempt)))


def write_ending(
    store: JobStore,
    record: LaunchRecord,
    verdict: Verdict,
    times: AdmissionTimes,
    observation: Observation | None = None,
    report: Report | None = None,
    *,
    has_console: bool = False,
    staleness: Staleness = NOTHING_STALE,
) -> None:
    """Record the outcome, then take the attempt out of the queue: in this order, for a crash."""
    if report is None or report.is_from_console:
        # Should another machine of this attempt come up late, it must not run the work.
        store.revoke_start_lock(record, verdict.reason)
    outcome = conclude(
        record,
        verdict,
        Times(
            requested=record.requested_at,
            admitted=times.admitted,
            launched=times.launched,
            detected=store.clock.now(),
        ),
        _machine(record, observation) if observation else None,
        dict(report.fields) if report else None,
        root=_machine_uri(store, observation) if observation else "",
        is_from_console=report is not None and report.is_from_console,
        has_console=has_console,
        staleness=staleness,
    )
    store.write_outcome(outcome)
    store.close_entry(entry_name(record.jobkey, record.attempt))


def _machine_uri(store: JobStore, observation: Observation) -> str:
    return f"s3://{store.bucket}/{machine_prefix(store.environment, observation.arn)}"


def _machine(record: LaunchRecord, observation: Observation) -> Machine:
    given = [p for p in record.placements if p.instance_type == observation.instance_type]
    return Machine(
        instance_id=observation.instance_id,
        arn=observation.arn,
        instance_type=observation.instance_type,
        availability_zone=observation.availability_zone,
        capacity_type=observation.capacity_type,
        state_reason=observation.reason_code,
        vcpus=given[0].vcpus if given else None,
        memory_mib=given[0].memory_mib if given else None,
    )
