"""How a job ends: one exit code per cause, and never a word of what the files say.

0 done; 65 the input is broken as a whole; 66 input is missing; 70 a fault in the job; 75 a
passing trouble, worth another attempt; 77 permission; 78 the environment is incomplete; 99
nothing to do. Numbers from sysexits.h; 99 as in Airflow's BashOperator.
"""

import traceback
from pathlib import Path

BROKEN_INPUT, MISSING, FAULT, TRANSIENT, PERMISSION, CONFIG, SKIP = 65, 66, 70, 75, 77, 78, 99

_PASSING = {
    "InternalError",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "500",
    "503",
}
_REFUSED = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"}


class BrokenInput(Exception):  # noqa: N818 (reads as what happened)
    """A file that cannot be trusted at all; the message holds its name and no content."""


class MissingInput(Exception):  # noqa: N818
    """Something that an earlier job or the payer owes is not there."""


class NothingToDo(Exception):  # noqa: N818
    """The payer delivered nothing for this job on this date."""


class BadEnvironment(Exception):  # noqa: N818
    """A variable that the job needs is not set."""


_OWN = {
    BrokenInput: BROKEN_INPUT,
    MissingInput: MISSING,
    NothingToDo: SKIP,
    BadEnvironment: CONFIG,
}


def exit_code_of(error):
    """Say which exit code an exception deserves."""
    for kind, code in _OWN.items():
        if isinstance(error, kind):
            return code
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _code_of_aws(str(response.get("Error", {}).get("Code", "")))
    # botocore's own errors (no answer, broken connection, credentials not served) pass by
    # themselves; told by module, so that a job that never loaded botocore need not.
    if type(error).__module__.startswith("botocore") or isinstance(error, ConnectionError):
        return CONFIG if type(error).__name__ == "NoCredentialsError" else TRANSIENT
    return FAULT


def _code_of_aws(code):
    if code in _PASSING:
        return TRANSIENT
    if code in _REFUSED:
        return PERMISSION
    return MISSING if code in ("NoSuchBucket", "NoSuchKey", "404") else FAULT


def describe(error):
    """Put an exception in one line that holds no data of a person.

    Only our own messages are trusted. A library's may quote the row it choked on, so of those
    just the kind and the place in the code are told.
    """
    if isinstance(error, tuple(_OWN)):
        return str(error)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("Error", {}).get("Code", "unknown")
        return f"S3 answered {code} to {getattr(error, 'operation_name', 'a request')}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).parent == Path(__file__).parent]
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{place}"
