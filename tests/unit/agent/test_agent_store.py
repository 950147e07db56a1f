"""The bucket through an unreliable network: conditions, retries, clock skew, refusals."""

import io
from hashlib import sha256

import pytest

from airflow_ephemeral_ec2.agent.aws import Aws
from airflow_ephemeral_ec2.agent.clock import Clock
from airflow_ephemeral_ec2.agent.failure import Failure, Transient
from airflow_ephemeral_ec2.agent.store import Store
from airflow_ephemeral_ec2.agent.transport import Answer

KEYS = {"AccessKeyId": "A", "SecretAccessKey": "S", "Token": "T", "Expiration": ""}
SKEWED = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
NOON = "Sun, 01 Mar 2026 12:00:00 GMT"


class Wire:
    """Stands for the network: a list of answers or exceptions, and what was asked."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers, self.asked = list(answers), []

    def prepare(self, url: str) -> None:
        pass

    def send(self, method, url, headers, body=b"", sink=None) -> Answer:
        self.asked.append((method, url, headers, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if sink is not None and answer.status == 200:
            sink.write(answer.body)
        return answer


def store_of(*answers: Answer | Exception, endpoint: str = "", bucket: str = "b"):
    pauses: list[float] = []
    ticks = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        ticks[0] += seconds

    clock = Clock(lambda: ticks[0], lambda: 0.0)
    aws = Aws("us-east-1", endpoint, lambda: KEYS, clock, sleep)
    aws.transport = Wire(*answers)
    return Store(aws, bucket), aws.transport, pauses


def said(status: int, body: bytes = b"", date: str | None = None) -> Answer:
    return Answer(status, date, body)


def test_a_write_carries_its_checksum_so_that_a_bucket_with_object_lock_takes_it():
    store, wire, _ = store_of(said(200))

    store.put_once("t/x", b"1", 10)

    headers = wire.asked[0][2]
    assert headers["x-amz-checksum-sha256"] == "a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s="
    assert headers["x-amz-sdk-checksum-algorithm"] == "SHA256"
    assert "x-amz-checksum-sha256" in headers["authorization"]


def test_a_write_asks_that_nothing_is_there_yet():
    store, wire, _ = store_of(said(200))

    assert store.put_once("t/x:y", b"1", 10)

    method, url, headers, body = wire.asked[0]
    assert (method, url, body) == ("PUT", "https://b.s3.us-east-1.amazonaws.com/t/x%3Ay", b"1")
    assert headers["if-none-match"] == "*"


def test_a_write_to_what_exists_says_so():
    store, _, _ = store_of(said(412))

    assert not store.put_once("k", b"1", 10)


@pytest.mark.parametrize("trouble", [Transient("reset"), said(503), said(409), said(429)])
def test_passing_trouble_is_asked_again_with_a_pause(trouble):
    store, wire, pauses = store_of(trouble, trouble, said(200))

    assert store.put_once("k", b"1", 60)

    assert len(wire.asked) == 3
    assert len(pauses) == 2


def test_pauses_grow_and_stay_below_ten_seconds():
    store, _, pauses = store_of(*[said(503)] * 12, said(200))

    store.put_once("k", b"1", 600)

    assert pauses[0] <= 0.2
    assert 5 <= pauses[-1] <= 10


def test_patience_ends_with_a_network_failure():
    store, _, _ = store_of(*[Transient("s3: timed out")] * 9)

    with pytest.raises(Failure, match="timed out") as caught:
        store.put_once("k", b"1", 0.0)

    assert caught.value.kind == "network"


def test_clock_skew_is_cured_by_the_date_header_of_the_refusal():
    store, wire, _ = store_of(said(403, SKEWED, NOON), said(200, b"", NOON))

    assert store.put_once("k", b"1", 60)

    assert wire.asked[0][2]["x-amz-date"].startswith("19700101")
    assert wire.asked[1][2]["x-amz-date"].startswith("20260301T1200")


def test_a_refusal_is_final_and_says_what_was_refused():
    store, wire, _ = store_of(said(403, b"<Error><Code>AccessDenied</Code></Error>"))

    with pytest.raises(Failure, match=r"PUT .*AccessDenied") as caught:
        store.put_once("k", b"1", 60)

    assert caught.value.kind == "access_denied"
    assert len(wire.asked) == 1


def test_expired_credentials_are_asked_for_again():
    expired = said(400, b"<Error><Code>ExpiredToken</Code></Error>")
    store, wire, _ = store_of(expired, said(200))

    assert store.put_once("k", b"1", 60)
    assert len(wire.asked) == 2


def test_a_missing_object_reads_as_empty_and_a_missing_archive_as_failure():
    store, _, _ = store_of(said(404), said(404))

    assert store.get("k", 1) == b""
    with pytest.raises(Failure, match="s3://b/code does not exist") as caught:
        store.fetch("code", io.BytesIO(), 1)
    assert caught.value.kind == "code_missing"


def test_a_fetch_that_broke_off_starts_from_an_empty_file():
    store, wire, _ = store_of(said(200, b"whole"))
    file = io.BytesIO(b"half of something longer")
    wire.answers.insert(0, Transient("closed too early"))

    digest = store.fetch("code", file, 60)

    assert digest == sha256(b"whole").hexdigest()
    assert file.read() == b"whole"


@pytest.mark.parametrize(
    ("endpoint", "bucket", "url"),
    [
        ("", "b", "https://b.s3.us-east-1.amazonaws.com/k"),
        ("", "a.b", "https://s3.us-east-1.amazonaws.com/a.b/k"),
        ("http://127.0.0.1:5000/", "b", "http://127.0.0.1:5000/b/k"),
    ],
)
def test_the_bucket_is_in_the_host_except_where_it_cannot_be(endpoint, bucket, url):
    store, wire, _ = store_of(said(200), endpoint=endpoint, bucket=bucket)

    store.put_once("k", b"1", 1)

    assert wire.asked[0][1] == url
