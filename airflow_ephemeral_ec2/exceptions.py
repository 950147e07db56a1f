"""
Everything that can go wrong, as a tree.

::

    EphemeralEC2Error
    ├── ConfigurationError          the user must change something; never retried
    │   ├── TableError              the config table, every problem at once
    │   ├── UnknownJobError         payer or job is not in the table
    │   ├── SettingsError           [ephemeral_ec2] of airflow.cfg
    │   ├── CodeMissingError        code was not pushed
    │   └── UserDataTooLargeError   over EC2's 16,384 bytes
    ├── AwsError                    AWS could not be asked
    │   ├── AccessError             connection, credentials or permission
    │   ├── BucketError             the bucket of record
    │   │   └── TamperedObjectError an object in it is not what we wrote
    │   ├── RequestRefusedError     AWS says that the request is wrong
    │   └── AwsUnavailableError     network, throttling, 5xx; retried
    └── JobEndedError               the attempt ended and the job did not succeed
        ├── JobError                JobFailedError, JobTimeoutError, JobOutOfMemoryError,
        │                           SetupFailedError
        ├── InfrastructureError     BootTimeoutError, NeverStartedError, SpotInterruptedError,
        │                           HostLostError, NoCapacityError, QuotaError; retried
        ├── LaunchRefusedError
        ├── WaitTimeoutError
        ├── EndedFromOutsideError   KilledError, SupersededError
        └── EvidenceError           LostStatusError, TamperedError, ChannelConflictError

``docs/outcomes.md`` says of each what it means and what to do. Every class says what happened,
what was tried and what to do. Arguments go to ``super().__init__`` and the text is made in
``__str__``, so that each survives pickling. No job output ever appears here: it may hold PHI.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar


class EphemeralEC2Error(Exception):
    """Something this package can name."""

    retryable = False
    may_pass = False  # asked again later, the answer may be another


class ConfigurationError(EphemeralEC2Error):
    """The user must change something."""


@dataclass(frozen=True)
class Problem:
    """One error in a table: where it stands, what was found, what is allowed."""

    path: str
    """File as the user named it."""
    line: int
    """1-based; 0 where the file has no line for it."""
    column: str
    """YAML: the key path, like ``acme.claims.max_runtime``; CSV: the column name."""
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}  {self.column}  {self.message}"


class TableError(ConfigurationError):
    """The config table has errors; all of them are here."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [str(problem) for problem in self.problems]
        lines.append(f"{count} error{'s' if count != 1 else ''}; no AWS call made")
        return "\n".join(lines)


class UnknownJobError(ConfigurationError):
    """Payer or job is not in the table."""

    def __init__(self, kind: str, found: str, known: tuple[str, ...], table: str) -> None:
        super().__init__(kind, found, known, table)
        self.kind, self.found, self.known, self.table = kind, found, known, table

    def __str__(self) -> str:
        near = nearest(self.found, self.known)
        hint = f"; did you mean {near!r}?" if near else ""
        known = ", ".join(sorted(self.known)) or "none"
        return f"{self.table}: no such {self.kind}: {self.found!r}{hint} Known: {known}."


class SettingsError(ConfigurationError):
    """Settings are missing or wrong; all of them are named. Who waits has had them."""

    may_pass = True

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "Settings of [ephemeral_ec2] in airflow.cfg: " + "; ".join(self.problems)


class CodeMissingError(ConfigurationError):
    """The code folder was never pushed, or the bucket no longer has it."""

    def __init__(self, code: str, table: str, detail: str) -> None:
        super().__init__(code, table, detail)
        self.code, self.table, self.detail = code, table, detail

    def __str__(self) -> str:
        return f"code {self.code!r} {self.detail}. Run: ephemeral-ec2 push {self.table}"


class UserDataTooLargeError(ConfigurationError):
    """EC2 takes 16,384 bytes of user data, before base64."""

    def __init__(self, job: str, size: int, limit: int) -> None:
        super().__init__(job, size, limit)
        self.job, self.size, self.limit = job, size, limit

    def __str__(self) -> str:
        found = f"{self.job}: user data is {self.size:,} bytes of {self.limit:,}."
        return f"{found} Shorten command and env, or move them into the code folder."


class AwsError(EphemeralEC2Error):
    """AWS could not be asked, or refused to answer us."""

    may_pass = True

    def __init__(self, action: str, detail: str, advice: str = "") -> None:
        super().__init__(action, detail, advice)
        self.action, self.detail, self.advice = action, detail, advice

    def __str__(self) -> str:
        return f"{self.action}: {self.detail}" + (f" {self.advice}" if self.advice else "")


class AccessError(AwsError):
    """Connection, credentials or permission; asking again gives the same answer."""


class BucketError(AwsError):
    """The bucket of record is missing, elsewhere or not ours."""


class TamperedObjectError(BucketError):
    """An object in the bucket is not what this package wrote there; never believed, never fatal."""

    may_pass = False

    def __init__(self, uri: str, detail: str) -> None:
        advice = "Find out who wrote there; a newer release of this package may also have."
        super().__init__(f"read {uri}", detail, advice)
        self.uri = uri

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.uri, self.detail)


class RequestRefusedError(AwsError):
    """AWS says that the request itself is wrong: asking again gives the same answer."""


class AwsUnavailableError(AwsError):
    """Network, throttling or a fault inside AWS: unknown, and worth asking again."""

    retryable = True


class JobEndedError(EphemeralEC2Error):
    """The attempt ended and the job did not succeed; the message is the outcome's own."""

    ends: ClassVar[str] = ""
    """The outcome that a subclass stands for."""
    advice: ClassVar[str] = "Look at the log of the attempt."
    """What to do, in one sentence."""

    def __init__(self, message: str, outcome: str, *, retryable: bool = False) -> None:
        super().__init__(message, outcome)
        self.message, self.outcome, self.retryable = message, outcome, retryable

    def __reduce__(self) -> tuple[object, ...]:
        return _job_ended, (type(self), (self.message, self.outcome), self.retryable)

    def __str__(self) -> str:
        return self.message


def _job_ended(kind: type[JobEndedError], args: tuple[str, str], retryable: bool) -> JobEndedError:
    return kind(*args, retryable=retryable)


class JobError(JobEndedError):
    """The job itself did not do its work; the machine did its part."""


class JobFailedError(JobError):
    """The command ended with an exit code that is neither success nor skip."""

    ends = "job_failed"
    advice = "Read the job's log at the place that the message names."


class JobTimeoutError(JobError):
    """The command ran longer than ``max_runtime`` and was stopped."""

    ends = "job_timeout"
    advice = "Raise max_runtime, or choose a larger machine."


class JobOutOfMemoryError(JobError):
    """The kernel killed the job for its memory."""

    ends = "job_oom"
    advice = "Choose an instance type with more memory."


class SetupFailedError(JobError):
    """Something before the command failed: credentials, code, secrets, ``pre_command``."""

    ends = "setup_failed"
    advice = "Mend what the message names: code, secret, role or pre_command."


class InfrastructureError(JobEndedError):
    """The machine or EC2 failed, not the job; spends ``infra_retries``."""


class BootTimeoutError(InfrastructureError):
    """The command was not started within ``boot_timeout``."""

    ends = "boot_timeout"
    advice = "Look at the console output; check AMI, subnet and the way to S3."


class NeverStartedError(InfrastructureError):
    """The machine ended before it took the start lock: the work provably did not run."""

    ends = "never_started"
    advice = "Look at the console output; check the AMI and the machine's role."


class SpotInterruptedError(InfrastructureError):
    """EC2 took the spot machine back."""

    ends = "spot_interrupted"
    advice = "Let it be retried, or use spot-then-on-demand."


class HostLostError(InfrastructureError):
    """EC2 lost the machine: host failure, scheduled stop, an error inside EC2."""

    ends = "infra_failed"
    advice = "Let it be retried; if it repeats, look at the AWS Health dashboard."


class NoCapacityError(InfrastructureError):
    """EC2 had no machine in any placement of the row."""

    ends = "no_capacity"
    advice = "Add instance types or subnets to the row."


class QuotaError(InfrastructureError):
    """A limit of the AWS account is reached."""

    ends = "quota"
    advice = "Raise the limit in Service Quotas, or lower limits.vcpus."


class LaunchRefusedError(JobEndedError):
    """EC2 refused the launch, or could not start the machine: the row or a permission is wrong."""

    ends = "bad_config"
    advice = "Correct the row or the permission and clear the task."


class WaitTimeoutError(JobEndedError):
    """The attempt was not launched within ``max_wait``."""

    ends = "wait_timeout"
    advice = "Raise max_wait or the limits; the message says what it waited for."


class EndedFromOutsideError(JobEndedError):
    """A person or a newer attempt ended this one."""


class KilledError(EndedFromOutsideError):
    """Somebody ended the attempt, through Airflow or through EC2."""

    ends = "killed"
    advice = "Clear the task to run it again."


class SupersededError(EndedFromOutsideError):
    """The task was cleared while the attempt ran; a newer attempt has taken over."""

    ends = "superseded"
    advice = "Nothing: look at the newer attempt."


class EvidenceError(JobEndedError):
    """Nobody can say for certain what happened; never retried without a person."""


class LostStatusError(EvidenceError):
    """The machine ended without a report after it had started the work."""

    ends = "lost_status"
    advice = "Check what the job wrote, then clear the task if it is safe to run again."


class TamperedError(EvidenceError):
    """A report or an object in the bucket is not what this attempt wrote."""

    ends = "tampered"
    advice = "Find out who wrote there before you clear the task."


class ChannelConflictError(EvidenceError):
    """Report and console of the machine contradict each other."""

    ends = "channel_conflict"
    advice = "Compare report and console output; find out who wrote the wrong one."


def ending_errors() -> dict[str, type[JobEndedError]]:
    """Return outcome -> the exception that stands for it."""
    groups = JobEndedError.__subclasses__()
    leaves = [leaf for group in groups for leaf in (group, *group.__subclasses__())]
    return {kind.ends: kind for kind in leaves if kind.ends}


def ending_error(outcome: str, message: str, *, retryable: bool = False) -> JobEndedError:
    """Make the exception of an outcome."""
    kind = ending_errors().get(outcome, JobEndedError)
    return kind(message, outcome, retryable=retryable)


def nearest(found: str, known: tuple[str, ...] | list[str]) -> str | None:
    """Return the known word closest to the one that was found, or None."""
    matches = get_close_matches(found, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
