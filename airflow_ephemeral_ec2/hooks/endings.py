"""Collect the evidence about a dead machine, and write an attempt's ending down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.contract import PHASE_SUPERSEDED, machine_prefix
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.outcome import (
    Expected,
    Observation,
    Report,
    Verdict,
    judge,
    read_report,
)
from airflow_ephemeral_ec2.model.record import Machine, Times, conclude

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.plan import LaunchRecord


@dataclass(frozen=True)
class AdmissionTimes:
    """When an attempt was admitted and launched (seconds since 1970), as far as it came."""

    admitted: float | None
    launched: float | None


def find_verdict(
    store: JobStore, record: LaunchRecord, observation: Observation
) -> tuple[Verdict | None, Report | None, str | None]:
    """
    Judge a machine by its report; lock and kill record are read only where they decide.

    The third value is the instance that holds the start lock, when it is another one.

    :raises AwsError: the bucket cannot be read now; nothing is concluded from that
    """
    expected = Expected(record.jobkey, record.attempt, record.nonce, observation.instance_id)
    body = store.read_report(observation.arn) if observation.arn else None
    report = read_report(body, expected)
    if isinstance(report, Report) and not (report.interrupted or report.phase == PHASE_SUPERSEDED):
        return judge(record.spec, observation, report, None, None), report, None
    name = entry_name(record.jobkey, record.attempt)
    lock, kill = store.read_start_lock(record), store.read_kill(name)
    found = report if isinstance(report, Report) else None
    if lock is not None and lock.instance_id not in (None, observation.instance_id):
        return None, found, lock.instance_id
    return judge(record.spec, observation, report, lock, kill), found, None


def write_ending(
    store: JobStore,
    record: LaunchRecord,
    verdict: Verdict,
    times: AdmissionTimes,
    observation: Observation | None = None,
    report: Report | None = None,
) -> None:
    """Record the outcome, then take the attempt out of the queue: in this order, for a crash."""
    if report is None:
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
