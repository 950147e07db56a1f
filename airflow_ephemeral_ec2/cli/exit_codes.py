"""What the exit status of ``ephemeral-ec2`` says; see ``docs/command-line.md``."""

from enum import IntEnum

from airflow_ephemeral_ec2.exceptions import AwsError, EphemeralEC2Error


class ExitCode(IntEnum):
    """``run`` also returns the job's own exit code; 128 + signal when a signal ended the call."""

    OK = 0
    NOT_SUCCEEDED = 1
    """``run``: the job did not succeed and left no exit code of its own."""
    USAGE = 2
    """Arguments, settings or the table are wrong: the user must change something."""
    AWS = 3
    """AWS cannot be asked, or refuses."""
    INTERRUPTED = 130


def exit_code_of(error: EphemeralEC2Error) -> ExitCode:
    if isinstance(error, AwsError) or error.retryable:
        return ExitCode.AWS
    return ExitCode.USAGE
