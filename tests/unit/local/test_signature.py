"""The server's signature check against botocore's signer."""

import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.local.api_request import ApiRequest
from airflow_ephemeral_ec2.local.signature import signature_problem

SECRET = "wJalr/secret"  # not a real one
NOW = datetime.now(UTC)


def _signed(method, path, query, body, service="s3", token="tok"):
    url = f"http://127.0.0.1:5000{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, data=body, headers={"X-Thing": " a   b "})
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials("AKID", SECRET, token), service, "us-east-1").add_auth(request)
    headers = {name.lower(): str(value) for name, value in request.headers.items()}
    return ApiRequest(method, path, query, {"host": "127.0.0.1:5000", **headers}, body)


def test_what_botocore_signs_is_accepted():
    request = _signed("PUT", "/bucket/a%3Ab/c", "x-id=PutObject&z=", b"body")

    assert signature_problem(request, SECRET, NOW) is None


@given(
    key=st.text(st.sampled_from("abzAZ09-_.~:+@!*'()$&,;= /\u00e9"), min_size=1, max_size=30),
    body=st.binary(max_size=40),
)
def test_any_key_and_body_that_botocore_signs_is_accepted(key, body):
    path = "/bucket/" + quote(key, safe="/-_.~").strip("/")

    assert signature_problem(_signed("PUT", path, "", body), SECRET, NOW) is None


def test_the_query_protocol_is_accepted():
    request = _signed("POST", "/", "", b"Action=AssumeRole&Version=2011-06-15", "sts")

    assert signature_problem(request, SECRET, NOW) is None


def test_a_wrong_secret_is_refused():
    request = _signed("GET", "/bucket/key", "", b"")

    assert signature_problem(request, "other", NOW) == "SignatureDoesNotMatch"


def test_a_changed_path_is_refused():
    request = _signed("GET", "/bucket/key", "", b"")
    moved = ApiRequest("GET", "/bucket/other", "", request.headers, b"")

    assert signature_problem(moved, SECRET, NOW) == "SignatureDoesNotMatch"


def test_a_changed_body_is_refused():
    request = _signed("PUT", "/bucket/key", "", b"one")
    claimed = {**request.headers, "x-amz-content-sha256": hashlib.sha256(b"one").hexdigest()}
    changed = ApiRequest("PUT", "/bucket/key", "", claimed, b"two")

    assert signature_problem(changed, SECRET, NOW) == "XAmzContentSHA256Mismatch"


def test_a_clock_that_is_wrong_by_more_than_15_minutes_is_refused():
    request = _signed("GET", "/bucket/key", "", b"")

    assert signature_problem(request, SECRET, NOW + timedelta(minutes=20)) == "RequestTimeTooSkewed"


def test_an_unsigned_request_is_refused():
    assert signature_problem(ApiRequest("GET", "/b/k", "", {}, b""), SECRET, NOW) == "AccessDenied"
