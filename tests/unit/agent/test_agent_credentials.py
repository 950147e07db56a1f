"""The job's credentials: fetched in time, served to whoever knows the token."""

import json
import time
from datetime import UTC, datetime
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from airflow_ephemeral_ec2.agent.clock import Clock
from airflow_ephemeral_ec2.agent.credentials import CredentialServer, Renewed
from airflow_ephemeral_ec2.agent.failure import Failure


class Source:
    """Issues numbered credentials of a lifetime; ``broken`` makes it fail."""

    def __init__(self, lifetime: float) -> None:
        self.now, self.lifetime, self.issued, self.broken = 1_000.0, lifetime, 0, False
        self.clock = Clock(lambda: self.now, lambda: self.now)

    def fetch(self) -> dict[str, str]:
        if self.broken:
            raise Failure("network", "STS is away")
        self.issued += 1
        end = datetime.fromtimestamp(self.now + self.lifetime, UTC)
        return {"AccessKeyId": f"key-{self.issued}", "Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}"}


def test_fresh_credentials_are_kept():
    source = Source(3600)
    keys = Renewed(source.fetch, source.clock)

    keys()
    source.now += 2600

    assert keys()["AccessKeyId"] == "key-1"


def test_credentials_are_fetched_again_fifteen_minutes_before_their_end():
    source = Source(3600)
    keys = Renewed(source.fetch, source.clock)

    keys()
    source.now += 2701

    assert keys()["AccessKeyId"] == "key-2"


def test_short_lived_credentials_are_fetched_again_at_half_of_their_life():
    source = Source(60)
    keys = Renewed(source.fetch, source.clock)

    keys()
    source.now += 29
    before = keys()["AccessKeyId"]
    source.now += 2

    assert (before, keys()["AccessKeyId"]) == ("key-1", "key-2")


def test_an_old_key_is_used_while_it_is_valid_and_none_can_be_fetched():
    source = Source(3600)
    keys = Renewed(source.fetch, source.clock)
    keys()
    source.broken = True

    source.now += 3000
    assert keys()["AccessKeyId"] == "key-1"

    source.now += 601
    with pytest.raises(Failure, match="STS is away"):
        keys()


@pytest.fixture
def server():
    running = CredentialServer(lambda: {"AccessKeyId": "A", "Expiration": "E"}, "the-token")
    yield running
    running.close()


def ask(url: str, path: str | None = None, token: str | None = "the-token"):
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname, parts.port, timeout=5)
    connection.request("GET", path or parts.path, headers={"Authorization": token} if token else {})
    answer = connection.getresponse()
    try:
        return answer.status, json.load(answer)
    finally:
        connection.close()


def test_the_server_gives_credentials_to_whoever_knows_the_token(server):
    assert ask(server.url) == (200, {"AccessKeyId": "A", "Expiration": "E"})


@pytest.mark.parametrize("token", [None, "", "wrong", "the-token2"])
def test_the_server_refuses_a_wrong_or_missing_token(server, token):
    status, body = ask(server.url, token=token)

    assert status == 403
    assert "AccessKeyId" not in body


def test_the_server_knows_one_path(server):
    assert ask(server.url, path="/other")[0] == 403


def test_the_server_listens_on_loopback_only(server):
    assert urlsplit(server.url).hostname == "127.0.0.1"


def test_a_client_that_says_nothing_does_not_block_others(server):
    parts = urlsplit(server.url)
    silent = HTTPConnection(parts.hostname, parts.port, timeout=5)
    silent.connect()

    start = time.monotonic()
    status, _ = ask(server.url)

    assert status == 200
    assert time.monotonic() - start < 2
    silent.close()


def test_the_server_says_503_when_the_role_cannot_be_assumed():
    def broken() -> dict[str, str]:
        raise Failure("network", "STS is away")

    running = CredentialServer(broken, "the-token")
    try:
        assert ask(running.url) == (503, {"message": "STS is away"})
    finally:
        running.close()
