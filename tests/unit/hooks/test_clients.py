"""What botocore repeats by itself, and what it must not."""

import io

import botocore.utils
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

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


def test_clients_are_made_again_only_when_the_connection_has_changed(monkeypatch):
    made, now, uri = [], [0.0], ["aws://one"]
    monkeypatch.setattr(ec2.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ec2.EphemeralEC2Hook, "fingerprint", lambda _self: uri[0])
    monkeypatch.setattr(
        ec2.EphemeralEC2Hook, "make_clients", lambda _self: made.append(1) or object()
    )
    ec2.forget_clients()

    first = ec2.connect("aws_x", "us-east-1")
    now[0] += ec2.CLIENTS_SECONDS + 1
    assert ec2.connect("aws_x", "us-east-1") is first
    uri[0] = "aws://two"
    assert ec2.connect("aws_x", "us-east-1") is first
    now[0] += ec2.CLIENTS_SECONDS + 1
    assert ec2.connect("aws_x", "us-east-1") is not first
    ec2.forget_clients()

    assert len(made) == 2


def test_timestamps_are_read_as_botocore_reads_them():
    for text in (
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T12:00:00Z",
        "Sun, 01 Mar 2026 12:00:00 GMT",
    ):
        assert parse_time(text) == botocore.utils.parse_timestamp(text)
    assert parse_time(1_772_366_400) == botocore.utils.parse_timestamp(1_772_366_400)
