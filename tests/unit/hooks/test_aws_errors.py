"""Every AWS code has one meaning, and every error is one clear line."""

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
)

from airflow_ephemeral_ec2.exceptions import (
    AccessError,
    AwsUnavailableError,
    BucketError,
    RequestRefusedError,
)
from airflow_ephemeral_ec2.hooks.aws_errors import Answer, aws_call, classify_launch_error


def client_error(code, status, message="no"):
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        "RunInstances",
    )


@pytest.mark.parametrize(
    ("code", "status", "answer"),
    [
        ("InsufficientInstanceCapacity", 500, Answer.CAPACITY),
        ("Unsupported", 400, Answer.CAPACITY),
        ("InsufficientFreeAddressesInSubnet", 400, Answer.CAPACITY),
        ("VcpuLimitExceeded", 400, Answer.QUOTA),
        ("MaxSpotInstanceCountExceeded", 400, Answer.QUOTA),
        ("RequestLimitExceeded", 503, Answer.THROTTLED),
        ("InternalError", 500, Answer.AMBIGUOUS),
        ("NobodyKnows", 502, Answer.AMBIGUOUS),
        ("", 504, Answer.AMBIGUOUS),
        ("RequestExpired", 400, Answer.EXPIRED),
        ("ExpiredToken", 400, Answer.EXPIRED),
        ("IdempotentInstanceTerminated", 400, Answer.TOKEN_DEAD),
        ("IdempotentParameterMismatch", 400, Answer.TOKEN_MISMATCH),
        ("UnauthorizedOperation", 403, Answer.ACCESS),
        ("InvalidAMIID.NotFound", 400, Answer.CONFIG),
        ("NobodyKnows", 400, Answer.CONFIG),
    ],
)
def test_a_launch_error_has_one_meaning(code, status, answer):
    assert classify_launch_error(client_error(code, status)) is answer


@pytest.mark.parametrize(
    "error",
    [ConnectTimeoutError(endpoint_url="x"), EndpointConnectionError(endpoint_url="x")],
    ids=["timeout", "connection"],
)
def test_a_launch_without_answer_is_ambiguous(error):
    assert classify_launch_error(error) is Answer.AMBIGUOUS


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (NoCredentialsError(), AccessError, "Check the Airflow connection's AWS keys"),
        (NoRegionError(), AccessError, "Set region in the table"),
        (client_error("NoSuchBucket", 404), BucketError, "bucket 'b': NoSuchBucket. Create it"),
        (client_error("AccessDenied", 403), AccessError, "Grant RunInstances"),
        (client_error("Strange", 403), AccessError, "AWS says Strange"),
        (client_error("SlowDown", 503), AwsUnavailableError, "AWS says SlowDown"),
        (client_error("Oops", 500), AwsUnavailableError, "AWS says Oops"),
        (client_error("MalformedXML", 400), RequestRefusedError, "MalformedXML"),
        (EndpointConnectionError(endpoint_url="http://x"), AwsUnavailableError, "read it"),
    ],
)
def test_an_error_of_aws_becomes_one_clear_line(error, kind, text):
    with pytest.raises(kind) as raised, aws_call("read it", bucket="b"):
        raise error

    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
