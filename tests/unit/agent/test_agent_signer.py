"""The agent's signatures are botocore's."""

from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.agent.signer import sign

KEYS = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "se/cret+", "Token": "to/ken=="}
AMZ_DATE = "20260301T020000Z"
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30)
bodies = st.binary(max_size=200)


def of_botocore(auth: type, service: str, method: str, url: str, headers, body: bytes) -> str:
    request = AWSRequest(method=method, url=url, headers=headers, data=body)
    request.context.update(timestamp=AMZ_DATE, payload_signing_enabled=True)
    credentials = Credentials(KEYS["AccessKeyId"], KEYS["SecretAccessKey"], KEYS["Token"])
    signer = auth(credentials, service, "us-east-1")
    request.headers["X-Amz-Date"] = AMZ_DATE
    signer._modify_request_before_signing(request)
    canonical = signer.canonical_request(request)
    return signer.signature(signer.string_to_sign(request, canonical), request)


def of_agent(service: str, method: str, path: str, headers, body: bytes) -> str:
    signed = sign(
        method, path, headers, body,
        service=service, region="us-east-1", keys=KEYS, amz_date=AMZ_DATE,
    )  # fmt: skip
    return signed["authorization"].rpartition("=")[2]


@given(key=text, body=bodies, method=st.sampled_from(["GET", "PUT"]))
def test_s3_signature_equals_botocores_for_any_key_and_body(key: str, body: bytes, method: str):
    path = "/bucket/" + quote(f"t/a:b/{key}", safe="/-_.~")
    headers = {"host": "s3.test", "if-none-match": "*"}

    ours = of_agent("s3", method, path, headers, body)

    assert ours == of_botocore(S3SigV4Auth, "s3", method, f"https://s3.test{path}", headers, body)


@given(body=bodies, target=text, service=st.sampled_from(["sts", "ssm", "secretsmanager"]))
def test_post_signature_equals_botocores_for_any_body(body: bytes, target: str, service: str):
    headers = {"host": "api.test", "content-type": "x/y; charset=utf-8", "x-amz-target": target}

    ours = of_agent(service, "POST", "/", headers, body)

    assert ours == of_botocore(SigV4Auth, service, "POST", "https://api.test/", headers, body)


def test_a_changed_body_changes_the_signature():
    headers = {"host": "s3.test"}

    first, second = (of_agent("s3", "PUT", "/b/k", headers, body) for body in (b"a", b"b"))

    assert first != second


@pytest.mark.parametrize("service", ["s3", "sts"])
def test_only_s3_names_its_payload_hash_in_a_header(service: str):
    signed = sign(
        "GET", "/", {"host": "h"}, b"",
        service=service, region="r", keys=KEYS, amz_date=AMZ_DATE,
    )  # fmt: skip

    assert ("x-amz-content-sha256" in signed) == (service == "s3")
