"""Every ending has a name; and what is known about an attempt when one is looked for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    JOB_FAILED = "job_failed"
    JOB_TIMEOUT = "job_timeout"
    JOB_OOM = "job_oom"
    SETUP_FAILED = "setup_failed"
    BOOT_TIMEOUT = "boot_timeout"
    NEVER_STARTED = "never_started"
    SPOT_INTERRUPTED = "spot_interrupted"
    INFRA_FAILED = "infra_failed"
    NO_CAPACITY = "no_capacity"
    QUOTA = "quota"
    BAD_CONFIG = "bad_config"
    WAIT_TIMEOUT = "wait_timeout"
    KILLED = "killed"
    SUPERSEDED = "superseded"
    LOST_STATUS = "lost_status"
    TAMPERED = "tampered"
    CHANNEL_CONFLICT = "channel_conflict"


class Budget(StrEnum):
    """Which retries an outcome may spend."""

    NONE = "none"
    JOB = "job"
    INFRA = "infra"


INFRA_OUTCOMES = frozenset(
    {
        Outcome.BOOT_TIMEOUT,
        Outcome.NEVER_STARTED,
        Outcome.SPOT_INTERRUPTED,
        Outcome.INFRA_FAILED,
        Outcome.NO_CAPACITY,
        Outcome.QUOTA,
    }
)
"""Provably not the job's fault, and the work did not finish."""


@dataclass(frozen=True)
class Verdict:
    """The outcome, why, and which budget another attempt would spend."""

    outcome: Outcome
    reason: str
    budget: Budget = Budget.NONE


@dataclass(frozen=True)
class Observation:
    """What EC2 says about the machine of an attempt."""

    instance_id: str
    state: str
    """``pending`` ... ``terminated``; ``gone`` when EC2 no longer knows it."""
    reason_code: str = ""
    """``StateReason.Code``."""
    instance_type: str = ""
    availability_zone: str = ""
    capacity_type: str = "on-demand"
    arn: str = ""
    subnet: str = ""
    """Empty where EC2 no longer says: a terminated instance has lost its network."""
    client_token: str = ""
    launched_at: float | None = None
    """Seconds since 1970, as EC2 says."""

    @property
    def is_dead(self) -> bool:
        """No process of this machine can run any more."""
        return self.state in ("terminated", "gone")


@dataclass(frozen=True)
class StartLock:
    """Who may run the attempt: the instance that took it, or nobody when it was revoked."""

    instance_id: str | None
    revoked: str | None
    fault: str = ""
    """Why the object cannot be believed; empty: it is what an agent or this package writes."""
    arn: str = ""
    """Of the instance that took it: its report is found even if EC2 never showed the machine."""
    verdict: Verdict | None = None
    """How the attempt ends for which it was revoked, where that was known then."""

    @property
    def is_foreign(self) -> bool:
        """Whether nobody knows from it who may run the attempt."""
        return bool(self.fault)


BY_API = (
    "Client.UserInitiatedShutdown",
    "Client.UserInitiatedHibernate",
    "Client.InstanceTerminated",
)
"""Somebody asked for it through the EC2 API."""
BY_ITSELF = "Client.InstanceInitiatedShutdown"
"""The machine powered itself off, as the agent does once the report is written."""
KILL_STOPPED = "stopped"
"""Kill reason of a machine that was stopped; ``by`` is the StateReason that it had then."""


@dataclass(frozen=True)
class Kill:
    """Our own record that we ended the attempt, and why."""

    reason: str
    """``timeout``, ``boot_timeout``, ``stuck_pending``, ``impaired``, ``stopped``, ``cancelled``,
    ``superseded``, ``execution_timeout`` or ``tampered``; or the words of ``verdict``."""
    by: str = ""
    verdict: Verdict | None = None
    """How the attempt ends, where that was known before its machine was ended."""

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        """End a machine because its attempt has come to this."""
        return cls(verdict.reason, verdict=verdict)


_GIVING_UP = frozenset({"cancelled", "superseded", "execution_timeout"})


def gives_up(reason: str) -> bool:
    """
    Whether an attempt was ended because a person or Airflow wants it no more.

    :param reason: of the kill, or the words with which the start lock was revoked: they begin
        with it
    """
    return reason.partition(" ")[0] in _GIVING_UP
