"""What to do about a machine that is still there."""

from dataclasses import dataclass

from airflow_ephemeral_ec2.model.outcome import Observation
from airflow_ephemeral_ec2.model.spec import JobSpec

DEADLINE_SLACK_SECONDS = 120
"""The engine waits this much longer than the agent's own limit, so that the agent acts first."""


@dataclass(frozen=True)
class Due:
    """A reason to end a machine from outside, as the kill record names it."""

    reason: str
    needs_free_lock: bool = False
    """Only if the start lock can still be revoked: otherwise the job is running."""


def is_overdue(
    spec: JobSpec, observation: Observation, launched_at: float, now: float
) -> Due | None:
    """
    Decide whether a machine must be ended from outside, counted from its launch (seconds).

    Stopped machines keep a disk with PHI: they are always ended.
    """
    if observation.is_dead or observation.state == "shutting-down":
        return None
    if observation.state in ("stopping", "stopped"):
        return Due("late")
    age = now - launched_at
    longest = spec.boot_timeout + spec.max_runtime + spec.stop_grace + DEADLINE_SLACK_SECONDS
    if age > longest:
        return Due("timeout")
    if age > spec.boot_timeout:
        return Due("boot_timeout", needs_free_lock=True)
    return None
