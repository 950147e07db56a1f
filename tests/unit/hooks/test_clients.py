"""What botocore repeats by itself, and what it must not."""

import io

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.hooks.clients import clients_from_environment

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
