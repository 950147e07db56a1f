"""The lock file beside a table: what ``push`` uploaded and learned from EC2."""

from pathlib import Path

from pydantic import ValidationError

from airflow_ephemeral_ec2.exceptions import Problem
from airflow_ephemeral_ec2.model.spec import LockFile

_ADVICE = "it is written by ephemeral-ec2 push; delete it and push again"


def read_lock(path: Path) -> tuple[LockFile, tuple[Problem, ...]]:
    """Read a lock file; one that does not exist is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return LockFile(), ()
    except (OSError, UnicodeDecodeError) as error:
        return LockFile(), (
            Problem(str(path), 0, "", f"cannot be read ({_why(error)}); {_ADVICE}"),
        )
    try:
        return LockFile.model_validate_json(text), ()
    except ValidationError as error:
        problems = [
            Problem(str(path), 0, ".".join(map(str, one["loc"])), f"{one['msg']}; {_ADVICE}")
            for one in error.errors(include_url=False)
        ]
        return LockFile(), tuple(problems)


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "unknown" if isinstance(error, OSError) else "not UTF-8"
