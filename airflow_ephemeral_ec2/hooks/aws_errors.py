"""AWS error code -> what it means for us; the only file that knows the codes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import IncompleteRead, ProtocolError

from airflow_ephemeral_ec2.exceptions import (
    AccessError,
    AwsError,
    AwsUnavailableError,
    BucketError,
    RequestRefusedError,
)


class Answer(StrEnum):
    """What an error of RunInstances says about the launch (research: EC2 API error codes)."""

    CAPACITY = "capacity"
    """Definitive: nothing was launched, try the next placement."""
    QUOTA = "quota"
    """Definitive, and every placement would meet it."""
    THROTTLED = "throttled"
    """Nothing was launched; the same request again, later."""
    AMBIGUOUS = "ambiguous"
    """Unknown: the same request again until the answer is definitive."""
    EXPIRED = "expired"
    """Credentials or a clock, not the request: the same request with fresh ones."""
    TOKEN_DEAD = "token_dead"  # noqa: S105 - a client token, not a secret
    """The machine of this token was launched and has ended."""
    TOKEN_MISMATCH = "token_mismatch"  # noqa: S105
    """Somebody used this token with other parameters."""
    ACCESS = "access"
    CONFIG = "config"


EXPIRED_TOKEN = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
"""What S3 and STS say of a session token, and what EC2 does (EC2 API reference, "Error codes")."""
_CODES = {
    Answer.CAPACITY: {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientVolumeCapacity",
        "InsufficientAddressCapacity",
        "InsufficientFreeAddressesInSubnet",
        "ReservationCapacityExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "Unsupported",
        "UnsupportedOperation",
    },
    Answer.QUOTA: {
        "VcpuLimitExceeded",
        "InstanceLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "VolumeLimitExceeded",
        "MaxIOPSLimitExceeded",
        "NetworkInterfaceLimitExceeded",
        "ResourceCountExceeded",
    },
    Answer.THROTTLED: {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "EC2ThrottledException",
        "SlowDown",
    },
    Answer.AMBIGUOUS: {
        "InternalError",
        "InternalFailure",
        "ServerInternal",
        "Unavailable",
        "ServiceUnavailable",
        "RequestTimeout",
    },
    Answer.EXPIRED: {
        *EXPIRED_TOKEN,
        "InvalidSecurity.RequestHasExpired",
        "RequestTimeTooSkewed",
    },
    Answer.TOKEN_DEAD: {"IdempotentInstanceTerminated"},
    Answer.TOKEN_MISMATCH: {"IdempotentParameterMismatch"},
    Answer.ACCESS: {
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "OptInRequired",
        "Forbidden",
        "403",
    },
}
_ANSWERS = {code: answer for answer, codes in _CODES.items() for code in codes}

_CONFLICTS = {"ConditionalRequestConflict", "OperationAborted"}
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
)


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def error_message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))


def http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class UnreadableAnswerError(Exception):
    """EC2 answered, and what it says is not an answer: no instance, no id, broken XML."""


def classify_launch_error(error: ClientError | BotoCoreError | UnreadableAnswerError) -> Answer:
    """Say what an error of RunInstances means; what nobody knows is ambiguous or, as 4xx, config."""
    if not isinstance(error, ClientError):
        if isinstance(error, _NO_CREDENTIALS):
            return Answer.ACCESS
        return Answer.CONFIG if isinstance(error, ParamValidationError) else Answer.AMBIGUOUS
    known = _ANSWERS.get(error_code(error))
    if known is not None:
        return known
    return Answer.CONFIG if 400 <= http_status(error) < 500 else Answer.AMBIGUOUS


@contextmanager
def aws_call(action: str, *, bucket: str = "") -> Iterator[None]:
    """
    Turn what botocore raises into one clear line.

    :param action: what was being done, like ``read s3://bucket/key``
    :raises AccessError: connection, credentials or permission
    :raises BucketError: the bucket does not exist or lies in another region
    :raises AwsUnavailableError: network, throttling, a fault inside AWS
    :raises RequestRefusedError: any other refusal
    """
    try:
        yield
    except _NO_CREDENTIALS as error:
        raise AccessError(
            action, f"no AWS credentials ({error}).", "Check the Airflow connection's AWS keys."
        ) from error
    except NoRegionError as error:
        raise AccessError(action, "no AWS region.", "Set region in the table.") from error
    except ClientError as error:
        raise _named(action, bucket, error) from error
    except (BotoCoreError, ResponseParserError, IncompleteRead, ProtocolError) as error:
        raise AwsUnavailableError(action, f"{type(error).__name__}: {error}.") from error


def _named(action: str, bucket: str, error: ClientError) -> AwsError:
    code, status = error_code(error), http_status(error)
    if code == "NoSuchBucket" or (bucket and code in ("404", "PermanentRedirect")):
        return BucketError(
            action,
            f"bucket {bucket!r}: {code}.",
            "Create it in the table's region, or correct [ephemeral_ec2] bucket.",
        )
    answer = _ANSWERS.get(code)
    if answer is Answer.ACCESS or status in (401, 403):
        return AccessError(
            action,
            f"AWS says {code}: {error_message(error)}",
            f"Grant {error.operation_name} to the connection's role (docs/operating.md#iam).",
        )
    # 409: two conditional writes met, and nobody has won yet (S3: ConditionalRequestConflict).
    unknown = (Answer.THROTTLED, Answer.AMBIGUOUS, Answer.EXPIRED)
    if answer in unknown or status >= 500 or code in _CONFLICTS:
        return AwsUnavailableError(action, f"AWS says {code}: {error_message(error)}")
    return RequestRefusedError(action, f"AWS says {code}: {error_message(error)}")


_CODE = re.compile(r"(AWS says )?[\w.]+(?=: )")
"""How the detail of an error begins where somebody has a code for it: ``AWS says SlowDown: ...``."""


def kind_of(error: Exception) -> str:
    """Name what stays the same while the same thing goes wrong: class and code, not changing words."""
    cause, what = error.__cause__, None
    if isinstance(cause, ClientError):
        what = error_code(cause)
    elif isinstance(error, AwsError) and (code := _CODE.match(error.detail)):
        what = code.group()
    return f"{type(error).__name__} {what or type(cause).__name__}"
