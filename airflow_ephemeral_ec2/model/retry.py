"""Two retry budgets, one for the machine and one for the job."""

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_ephemeral_ec2.model.outcome import Budget
from airflow_ephemeral_ec2.model.record import OutcomeRecord
from airflow_ephemeral_ec2.model.spec import JobSpec


@dataclass(frozen=True)
class Retry:
    """Whether another attempt may be opened, and a sentence that says why."""

    is_allowed: bool
    sentence: str


def decide_retry(
    spec: JobSpec,
    record: OutcomeRecord,
    earlier: Sequence[OutcomeRecord],
    *,
    has_tries_left: bool = True,
) -> Retry:
    """
    Decide on the next attempt from how this one and the earlier ones ended.

    Only attempts of the same epoch count: clearing a task gives it fresh budgets.

    :param has_tries_left: whether Airflow itself would try the task again
    """
    if record.budget is Budget.NONE:
        code = record.exit_code
        if code and record.outcome == "job_failed":
            return Retry(False, f"Not retried: {code} is not in retry_exit_codes.")
        return Retry(False, f"Not retried: {record.outcome.replace('_', ' ')} is final.")
    allowed = spec.infra_retries if record.budget is Budget.INFRA else spec.job_retries
    name = f"{record.budget}_retries"
    same_run = [o for o in earlier if o.epoch == record.epoch]
    spent = 1 + sum(o.budget is record.budget for o in same_run)
    if spent > allowed:
        return Retry(False, f"Not retried: {name} ({allowed}) spent.")
    if not has_tries_left:
        return Retry(False, "Not retried: the task has no retries left in Airflow.")
    return Retry(True, f"Retry {spent} of {allowed} ({name}).")
