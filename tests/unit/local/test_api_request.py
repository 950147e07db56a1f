"""What the gateway reads from a request."""

import pytest

from airflow_ephemeral_ec2.local.api_request import ApiRequest
from airflow_ephemeral_ec2.local.error_answers import render_error

_SCOPE = "AWS4-HMAC-SHA256 Credential=local/20260301/us-west-2/{}/aws4_request, SignedHeaders=host"


def _request(method="GET", path="/", query="", service="s3", body=b"", **headers):
    return ApiRequest(
        method, path, query, {"authorization": _SCOPE.format(service), **headers}, body
    )


@pytest.mark.parametrize(
    ("method", "path", "query", "action"),
    [
        ("GET", "/", "", "ListAllMyBuckets"),
        ("GET", "/b", "list-type=2&prefix=x", "ListBucket"),
        ("PUT", "/b", "", "CreateBucket"),
        ("GET", "/b", "location", "GetBucketLocation"),
        ("HEAD", "/b/k", "", "GetObject"),
        ("PUT", "/b/k%2Fl", "", "PutObject"),
        ("POST", "/b/k", "uploads", "PutObject"),
        ("DELETE", "/b/k", "", "DeleteObject"),
        ("POST", "/b", "delete", "DeleteObject"),
    ],
)
def test_s3_actions_have_their_iam_names(method, path, query, action):
    assert _request(method, path, query).action == action


def test_bucket_and_key_are_decoded():
    request = _request("PUT", "/b/demo/machines/arn%3Aaws/report.json")

    assert (request.bucket, request.key) == ("b", "demo/machines/arn:aws/report.json")


def test_region_service_and_key_come_from_the_signature():
    request = _request(service="ec2", body=b"Action=DescribeInstances")

    found = (request.service, request.region, request.access_key, request.action)
    assert found == ("ec2", "us-west-2", "local", "DescribeInstances")


def test_the_log_gets_ids_and_never_user_data():
    body = b"Action=RunInstances&ClientToken=t&InstanceType=m7i.large&UserData=c2VjcmV0"
    request = _request("POST", service="ec2", body=body)

    assert request.identifiers() == {"ClientToken": "t", "InstanceType": "m7i.large"}


@pytest.mark.parametrize(
    ("request_", "start"),
    [
        (_request("PUT", "/b/k"), b"<Error><Code>X"),
        (_request("POST", service="ec2"), b"<Response><Errors><Error><Code>X"),
        (_request("POST", service="sts"), b"<ErrorResponse><Error><Code>X"),
    ],
)
def test_errors_speak_the_callers_protocol(request_, start):
    reply = render_error(request_, 400, "X", "a < b")

    assert start in reply.body
    assert b"a &lt; b" in reply.body
    assert reply.error_code == "X"


def test_json_services_get_json_errors():
    request = _request("POST", service="ssm", **{"x-amz-target": "AmazonSSM.GetParameter"})

    assert render_error(request, 400, "AccessDeniedException", "no").error_code == (
        "AccessDeniedException"
    )
    assert request.action == "GetParameter"
