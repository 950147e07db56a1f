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
    │   ├── RequestRefusedError     AWS says that the request is wrong
    │   └── AwsUnavailableError     network, throttling, 5xx; retried
    └── JobEndedError               the attempt ended and the job did not succeed

No capacity, quota and refused launches are outcomes of an attempt (``model/outcome.py``).

Every class says what happened, what was tried and what to do. Arguments go to
``super().__init__`` and the text is made in ``__str__``, so that each survives pickling.
No job output ever appears here: it may hold PHI.
"""

from dataclasses import dataclass
from difflib import get_close_matches


class EphemeralEC2Error(Exception):
    """Something this package can name."""

    retryable = False


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
    """Settings are missing or wrong; all of them are named."""

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
        return (
            f"{self.job}: user data is {self.size:,} bytes of {self.limit:,}. "
            "Shorten command and env, or move them into the code folder."
        )


class AwsError(EphemeralEC2Error):
    """AWS could not be asked, or refused to answer us."""

    def __init__(self, action: str, detail: str, advice: str = "") -> None:
        super().__init__(action, detail, advice)
        self.action, self.detail, self.advice = action, detail, advice

    def __str__(self) -> str:
        return f"{self.action}: {self.detail}" + (f" {self.advice}" if self.advice else "")


class AccessError(AwsError):
    """Connection, credentials or permission; asking again gives the same answer."""


class BucketError(AwsError):
    """The bucket of record is missing, elsewhere or not ours."""


class RequestRefusedError(AwsError):
    """AWS says that the request itself is wrong: asking again gives the same answer."""


class AwsUnavailableError(AwsError):
    """Network, throttling or a fault inside AWS: unknown, and worth asking again."""

    retryable = True


class JobEndedError(EphemeralEC2Error):
    """The attempt ended and the job did not succeed; the message is the outcome's own."""

    def __init__(self, message: str, outcome: str, *, retryable: bool = False) -> None:
        super().__init__(message, outcome)
        self.message, self.outcome, self.retryable = message, outcome, retryable

    def __reduce__(self) -> tuple[object, ...]:
        return _job_ended, (self.message, self.outcome, self.retryable)

    def __str__(self) -> str:
        return self.message


def _job_ended(message: str, outcome: str, retryable: bool) -> JobEndedError:
    return JobEndedError(message, outcome, retryable=retryable)


def nearest(found: str, known: tuple[str, ...] | list[str]) -> str | None:
    """Return the known word closest to the one that was found, or None."""
    matches = get_close_matches(found, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
