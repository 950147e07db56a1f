"""The words that Airflow and the instance share: bucket keys, user data fields, report fields.

Standard library only, Python 3.9 grammar: this file travels to the instance inside user data.
All keys are relative to the bucket and start with the environment id.
"""

CONTRACT_VERSION = 1
"""Raised when a field below changes its meaning; the agent puts it into its report."""

CONSOLE_MARKER = "EPHEMERAL-EC2"
"""First word of the one line that the agent prints to the console before it powers off."""

EXIT_NOT_FOUND = 127
"""The command does not exist (POSIX shell convention)."""
EXIT_NOT_EXECUTABLE = 126
"""The command exists and cannot be executed (POSIX shell convention)."""

PHASE_LOCK = "lock"
PHASE_CREDENTIALS = "credentials"
PHASE_CODE = "code"
PHASE_SECRETS = "secrets"
PHASE_PRE_COMMAND = "pre_command"
PHASE_JOB = "job"
PHASE_SUPERSEDED = "superseded"
"""Report field "phase": how far the instance came. Only "job" means that the command was started."""

BY_SPOT = "spot"
"""Report field "interrupted_by" when the stop came with a spot notice; otherwise nobody said why."""

ERROR_CODE_MISSING = "code_missing"
ERROR_CODE_HASH = "code_hash_mismatch"
ERROR_CODE_UNSAFE = "code_unsafe"
ERROR_SECRETS = "secrets"
ERROR_PRE_COMMAND = "pre_command"
ERROR_DENIED = "access_denied"
ERROR_NETWORK = "network"
ERROR_INTERNAL = "internal"
"""Report field "error.kind" when the phase is not "job"."""


def attempt_prefix(environment: str, jobkey: str, attempt: int) -> str:
    return f"{environment}/jobs/{jobkey}/a{attempt}/"


def launch_key(environment: str, jobkey: str, attempt: int) -> str:
    return attempt_prefix(environment, jobkey, attempt) + "launch.json"


def start_lock_key(environment: str, jobkey: str, attempt: int, nonce: str) -> str:
    return attempt_prefix(environment, jobkey, attempt) + f"start-lock-{nonce}.json"


def outcome_key(environment: str, jobkey: str, attempt: int) -> str:
    return attempt_prefix(environment, jobkey, attempt) + "outcome.json"


def refused_key(environment: str, jobkey: str, attempt: int, placement: int) -> str:
    return attempt_prefix(environment, jobkey, attempt) + f"refused-{placement}.json"


def machine_prefix(environment: str, instance_arn: str) -> str:
    """Only the instance of this ARN may write below it (IAM: ``${ec2:SourceInstanceARN}``)."""
    return f"{environment}/machines/{instance_arn}/"


def report_key(environment: str, instance_arn: str) -> str:
    return machine_prefix(environment, instance_arn) + "report.json"


def log_key(environment: str, instance_arn: str, sequence: int) -> str:
    return machine_prefix(environment, instance_arn) + f"log/{sequence:06d}"


def console_key(environment: str, instance_arn: str) -> str:
    """EC2's console output of a machine that left no report; written by Airflow."""
    return machine_prefix(environment, instance_arn) + "console.txt"


def code_key(environment: str, sha256: str) -> str:
    return f"{environment}/code/{sha256}.tar.gz"


def instance_arn(region: str, account: str, instance_id: str, partition: str = "aws") -> str:
    return f"arn:{partition}:ec2:{region}:{account}:instance/{instance_id}"


def partition(region: str) -> str:
    """Return the AWS partition of a region, as it stands in ARNs."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"
