"""push, run and plan against one running local EC2: what the endpoint got is what plan shows."""

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from airflow_ephemeral_ec2.cli.main import main
from airflow_ephemeral_ec2.local.testing import local_ec2

SETTINGS = {"ENVIRONMENT": "demo", "BUCKET": "ephemeral-ec2-state", "REGION": "us-east-1"}


@pytest.fixture(scope="module")
def cloud():
    with local_ec2() as running:
        yield running


@pytest.fixture
def environ(cloud, tmp_path):
    """Make the environment of a program that takes the local EC2 for AWS; no Airflow."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        **cloud.environ,
        **{f"AIRFLOW__EPHEMERAL_EC2__{name}": value for name, value in SETTINGS.items()},
    }


@pytest.fixture
def call(environ, acme):
    def run(*arguments, text=True, **changes):
        return subprocess.run(
            [Path(sys.executable).parent / "ephemeral-ec2", *arguments],
            cwd=acme,
            env=environ | changes,
            capture_output=True,
            text=text,
            check=False,
        )

    return run


@pytest.fixture
def acme(tmp_path, capsys):
    assert main(["init", str(tmp_path / "acme")]) == 0
    capsys.readouterr()
    return tmp_path / "acme"


@contextmanager
def recording(url):
    """Stand before an endpoint and keep the body of every RunInstances that goes through."""
    host = url.removeprefix("http://")
    seen = []

    class Recorder(BaseHTTPRequestHandler):
        def _forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if b"Action=RunInstances" in body:
                seen.append(body)
            connection = http.client.HTTPConnection(host, timeout=30)
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()


def body_of(request):
    """Let botocore write a RunInstances request for the wire, and catch it there."""
    client = boto3.client(
        "ec2",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
        endpoint_url="http://127.0.0.1:9",
    )
    bodies = []

    def catch(request, **_):
        bodies.append(request.body.encode())
        return AWSResponse(request.url, 200, {}, _Nothing())

    client.meta.events.register("before-send.ec2.RunInstances", catch)
    client.run_instances(**request | {"UserData": base64.b64decode(request["UserData"])})
    return bodies[0]


class _Nothing:
    def stream(self, *_, **__):
        yield b"<RunInstancesResponse/>"


ALONE = ("--date", "2026-03-01", "--ignore-order", "eligibility is no part of this test")


def test_a_recorded_plan_is_byte_for_byte_what_the_endpoint_received(call, cloud):
    assert call("push", "payers.yaml").returncode == 0
    words = ["payers.yaml", "acme", "claims"]
    with recording(cloud.url) as (endpoint, received):
        where = ["--aws", *ALONE, "--run-id", "r1", "--endpoint-url", endpoint]
        done = call("run", *words, *where)
    assert done.returncode == 0, done.stderr

    shown = call("plan", *words, "--run-id", "r1", "--dag-id", "cli", "--json")
    piped = call("plan", *words, "--run-id", "r1", "--dag-id", "cli", "--user-data", text=False)

    plan = json.loads(shown.stdout)
    assert [body_of(plan["request"])] == received
    assert plan["recorded"]
    assert plan["placeholders"] == []
    assert piped.stdout == base64.b64decode(plan["request"]["UserData"])


def test_the_asked_placement_is_the_one_that_was_not_refused(call, cloud):
    call("push", "payers.yaml")
    cloud.add_fault(action="RunInstances", code="InsufficientInstanceCapacity", count=1)
    words = ["payers.yaml", "acme", "claims"]
    done = call("run", *words, "--aws", *ALONE, "--run-id", "r2")
    assert done.returncode == 0, done.stderr

    shown = call("plan", *words, "--run-id", "r2", "--dag-id", "cli", "--json")

    assert json.loads(shown.stdout)["placement"] == 2


def test_a_run_that_nobody_made_is_named(call):
    found = call("plan", "payers.yaml", "acme", "claims", "--run-id", "none")

    assert found.returncode == 2
    assert "no launch record of payer_acme.claims none" in found.stderr


def test_a_second_push_uploads_nothing_and_leaves_the_lock_file(call, acme):
    call("push", "payers.yaml")
    before = (acme / "payers.lock.json").stat()

    second = json.loads(call("push", "payers.yaml", "--json").stdout)

    assert [code["uploaded"] for code in second["code"]] == [False]
    assert not second["lock_file_written"]
    assert (acme / "payers.lock.json").stat().st_ino == before.st_ino


def test_push_uses_the_airflow_connection_where_there_is_one(call, cloud, environ):
    connection = {
        "conn_type": "aws",
        "login": cloud.access_key_id,
        "password": cloud.secret_access_key,
        "extra": {"endpoint_url": cloud.url, "region_name": "us-east-1"},
    }
    for name in cloud.environ:
        del environ[name]

    without = call("push", "payers.yaml", AWS_EC2_METADATA_DISABLED="true")
    found = call("push", "payers.yaml", "--json", AIRFLOW_CONN_AWS_DEFAULT=json.dumps(connection))

    assert without.returncode == 3
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["code"]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--bucket", "no-such-bucket"], "bucket 'no-such-bucket': NoSuchBucket. Create it"),
        (["--endpoint-url", "http://127.0.0.1:9"], "Could not connect"),
    ],
)
def test_aws_that_cannot_be_asked_is_one_clear_line_and_3(call, arguments, advice):
    found = call("push", "payers.yaml", *arguments)

    assert found.returncode == 3
    assert advice in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_profile_that_does_not_exist_is_one_clear_line_and_3(call):
    found = call("push", "payers.yaml", AWS_PROFILE="nobody")

    assert found.returncode == 3
    assert "nobody" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_code_that_was_not_pushed_stops_a_run_before_its_launch(call, cloud):
    launched = len(cloud.calls("RunInstances"))

    found = call("run", "payers.yaml", "pea", "member", "--aws", "--date", "2026-03-01")

    assert found.returncode == 2
    assert "Run: ephemeral-ec2 push payers.yaml" in found.stderr
    assert len(cloud.calls("RunInstances")) == launched


def test_a_missing_connection_is_named_and_3(call):
    found = call(
        "push",
        "payers.yaml",
        AIRFLOW_CONFIG="/dev/null",
        AIRFLOW__EPHEMERAL_EC2__AWS_CONN_ID="no_such_one",
    )

    assert found.returncode == 3
    assert "Airflow connection 'no_such_one': is not defined. Create it" in found.stderr
