"""What botocore repeats by itself, and what it must not."""

import io
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import boto3
import botocore.utils
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, Connection
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks import ec2
from airflow_ephemeral_ec2.hooks.clients import clients_from_environment, parse_time

NO_CAPACITY = b"<Response><Errors><Error><Code>InsufficientInstanceCapacity</Code></Error></Errors></Response>"


class _Answer(io.BytesIO):
    def stream(self, **_kwargs):
        yield self.read()


@pytest.fixture
def launch(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return clients_from_environment("us-east-1").launch


def test_a_launch_is_sent_once_however_it_fails(launch):
    """Capacity error, HTTP 500: botocore's standard mode would ask again by itself."""
    sent = []

    def answer(request, **_kwargs):
        sent.append(request.url)
        return AWSResponse(request.url, 500, {}, _Answer(NO_CAPACITY))

    launch.meta.events.register("before-send.ec2.RunInstances", answer)

    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        launch.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)

    assert len(sent) == 1


NOT_FOUND = AirflowNotFoundException("The conn_id `aws_x` isn't defined")
BROKEN = PermissionError("the API server says 403")


class Connections:
    """Airflow's answers about connections, and the clients that are made of them."""

    def __init__(self):
        self.answer, self.now, self.looks = "one", 1.0, 0
        self.has_credentials = True
        self.session = None

    def get_connection(self, conn_id):
        self.looks += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return Connection(conn_id=conn_id, conn_type="aws", login=self.answer, password="x")

    def get_session(self, hook, region_name):
        """Stand in for boto3's session: who asks it for a client gets its access key."""
        self.session = session = boto3.Session("key", "secret", region_name=region_name)
        key = hook.conn_config.aws_access_key_id or "ambient"
        session.client = lambda *_, **__: key
        if not self.has_credentials:
            session.get_credentials = lambda: None
        return session

    def keys_after(self, seconds, conn_id="aws_x"):
        """Let time go by; return the access key that is used then."""
        self.now += seconds
        return ec2.connect(conn_id, "us-east-1")._source("s3", Config())


@pytest.fixture
def connections(monkeypatch):
    found = Connections()

    def get_session(hook, region_name):
        return found.get_session(hook, region_name)

    monkeypatch.setattr(ec2, "_known", {})
    monkeypatch.setattr(ec2.time, "monotonic", lambda: found.now)
    monkeypatch.setattr(ec2.EphemeralEC2Hook, "get_connection", found.get_connection)
    monkeypatch.setattr(ec2.EphemeralEC2Hook, "get_session", get_session)
    return found


def test_clients_are_made_again_only_when_the_connection_has_changed(connections):
    assert connections.keys_after(0) == "one"
    first = ec2.connect("aws_x", "us-east-1")
    assert connections.keys_after(ec2.CLIENTS_SECONDS + 1) == "one"
    connections.answer = "two"
    assert connections.keys_after(1) == "one"
    assert ec2.connect("aws_x", "us-east-1") is first
    assert connections.keys_after(ec2.CLIENTS_SECONDS) == "two"


@pytest.mark.parametrize(
    ("code", "age", "is_renewed"),
    [
        ("ExpiredToken", 31, True),
        ("ExpiredTokenException", 31, True),
        ("RequestExpired", 31, True),
        ("AccessDenied", 31, False),
        # They are new, and new ones would expire as well.
        ("ExpiredToken", 29, False),
    ],
)
def test_clients_whose_token_has_expired_are_made_again(connections, code, age, is_renewed):
    """Somebody writes keys of an hour into a file that Airflow knows nothing of."""
    connections.keys_after(0)
    first, session = ec2.connect("aws_x", "us-east-1"), connections.session
    connections.now += age

    session.events.emit("after-call.s3.GetObject", parsed={"Error": {"Code": code}}, model=None)
    session.events.emit("after-call.s3.GetObject", parsed={"Body": b""}, model=None)

    assert (ec2.connect("aws_x", "us-east-1") is not first) is is_renewed


@pytest.mark.parametrize("conn_id", ["aws_x", "aws_default"])
@pytest.mark.parametrize("answer", [NOT_FOUND, BROKEN])
def test_clients_of_a_connection_that_airflow_does_not_find_now_are_kept(
    connections, answer, conn_id
):
    """Its API server is busy; keys that boto3 finds by itself may be another account's."""
    connections.keys_after(0, conn_id)
    connections.answer = answer
    assert connections.keys_after(ec2.CLIENTS_SECONDS, conn_id) == "one"
    connections.answer = "two"
    assert connections.keys_after(ec2.DOUBT_SECONDS - 1, conn_id) == "one"
    assert connections.keys_after(1, conn_id) == "two"


def test_a_connection_that_stays_away_is_believed_to_be_gone(connections):
    for conn_id in ("aws_default", "aws_x"):
        connections.keys_after(0, conn_id)
    connections.answer = NOT_FOUND
    connections.now += ec2.CLIENTS_SECONDS
    for conn_id in ("aws_default", "aws_x"):
        assert connections.keys_after(0, conn_id) == "one"
    connections.now += ec2.BELIEVED_SECONDS - 1
    for conn_id in ("aws_default", "aws_x"):
        assert connections.keys_after(0, conn_id) == "one"
    connections.now += ec2.DOUBT_SECONDS
    assert connections.keys_after(0, "aws_default") == "ambient"
    with pytest.raises(AccessError, match=r"'aws_x': is not defined\. Create it"):
        connections.keys_after(0)


def test_a_connection_that_comes_back_begins_its_absence_anew(connections):
    connections.keys_after(0)
    for answer in (NOT_FOUND, "one", NOT_FOUND):
        connections.answer = answer
        assert connections.keys_after(ec2.CLIENTS_SECONDS) == "one"


def test_a_default_connection_that_is_not_there_at_first_is_soon_looked_for_again(connections):
    connections.answer = NOT_FOUND
    assert connections.keys_after(0, "aws_default") == "ambient"
    connections.answer = "one"
    assert connections.keys_after(ec2.DOUBT_SECONDS, "aws_default") == "one"


def test_a_default_connection_that_nobody_ever_defined_is_looked_for_seldom(connections):
    connections.answer = NOT_FOUND
    for _ in range(int(2 * ec2.BELIEVED_SECONDS)):
        connections.keys_after(1, "aws_default")
    before = connections.looks
    for _ in range(int(ec2.CLIENTS_SECONDS) - 1):
        connections.keys_after(1, "aws_default")
    assert connections.looks - before <= 1
    assert len({ec2.connect("aws_default", "us-east-1")}) == 1


def test_expired_clients_are_made_anew_of_the_connection_and_of_nothing_else(connections):
    connections.keys_after(0, "aws_default")
    first = ec2.connect("aws_default", "us-east-1")
    ec2.renew_clients()
    second = ec2.connect("aws_default", "us-east-1")
    connections.answer = NOT_FOUND
    ec2.renew_clients()

    assert connections.keys_after(0, "aws_default") == "one"
    assert second is not first
    assert ec2.connect("aws_default", "us-east-1") is second


def test_without_a_connection_boto3_searches_by_itself(connections):
    assert connections.keys_after(0, None) == "ambient"
    assert connections.looks == 0


def test_no_clients_are_kept_that_found_no_credentials(connections):
    """They would never look for them again; a metadata service may answer a minute late."""
    connections.has_credentials = False
    with pytest.raises(AccessError, match="no AWS credentials"):
        connections.keys_after(0)

    connections.has_credentials = True
    assert connections.keys_after(1) == "one"


def test_a_connection_is_looked_up_again_as_soon_as_aws_has_refused(connections):
    """Somebody may be mending it."""
    connections.keys_after(0)
    first = ec2.connect("aws_x", "us-east-1")
    ec2.doubt_clients()
    assert connections.keys_after(1) == "one"
    assert ec2.connect("aws_x", "us-east-1") is first
    connections.answer = "two"
    ec2.doubt_clients()
    assert connections.keys_after(1) == "two"


def test_a_connection_that_goes_between_two_looks_makes_no_clients(connections, monkeypatch):
    monkeypatch.setattr(
        ec2.EphemeralEC2Hook,
        "fingerprint",
        lambda _: setattr(connections, "answer", NOT_FOUND) or "f",
    )

    with pytest.raises(AccessError, match="is not defined"):
        connections.keys_after(0, "aws_default")


def test_airflow_that_cannot_be_asked_at_all_is_asked_again(connections):
    connections.answer = BROKEN

    with pytest.raises(AwsUnavailableError, match="look up Airflow connection 'aws_x'") as error:
        connections.keys_after(0)

    assert "403" not in str(error.value), "what Airflow says of a connection may hold its keys"


def test_a_connection_that_airflow_makes_nothing_of_is_tried_again(connections, monkeypatch):
    def refuse(hook, region_name):
        raise NotImplementedError("method 'secret'")

    with monkeypatch.context() as patch:
        patch.setattr(ec2.EphemeralEC2Hook, "get_session", refuse)
        with pytest.raises(AwsUnavailableError, match="NotImplementedError") as error:
            connections.keys_after(0)

    assert "secret" not in str(error.value)
    assert connections.keys_after(0) == "one"


def test_a_connection_that_takes_its_time_holds_up_no_other(connections, monkeypatch):
    """A role that cannot be assumed may take a minute to say so."""
    known, is_asked, may_answer = ec2.connect("aws_x", "us-east-1"), Event(), Event()

    def get_session(hook, region_name):
        if hook.aws_conn_id == "aws_slow":
            is_asked.set()
            may_answer.wait(30)
        return connections.get_session(hook, region_name)

    monkeypatch.setattr(ec2.EphemeralEC2Hook, "get_session", get_session)
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(ec2.connect, "aws_slow", "us-east-1") for _ in range(2)]
        assert is_asked.wait(30)
        try:
            assert pool.submit(ec2.connect, "aws_x", "us-east-1").result(5) is known
        finally:
            may_answer.set()
        assert slow[0].result(30) is slow[1].result(30)


def test_timestamps_are_read_as_botocore_reads_them():
    for text in (
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T12:00:00Z",
        "Sun, 01 Mar 2026 12:00:00 GMT",
    ):
        assert parse_time(text) == botocore.utils.parse_timestamp(text)
    assert parse_time(1_772_366_400) == botocore.utils.parse_timestamp(1_772_366_400)
