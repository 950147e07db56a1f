"""A machine for the agent: instance metadata, moto's S3 and STS, and the real user data."""

import contextlib
import email
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.model.user_data import render_user_data

REGION, ACCOUNT, INSTANCE, BUCKET, ENV = "us-east-1", "123456789012", "i-0abc", "agent-tests", "t"
ARN = contract.instance_arn(REGION, ACCOUNT, INSTANCE)
JOBKEY, NONCE = "ab" * 16, "cd" * 16


def config(*command: str, **changes: object) -> dict[str, object]:
    """Return an agent config that runs ``command``."""
    return {
        "v": 1, "env": ENV, "bucket": BUCKET, "region": REGION, "jobkey": JOBKEY, "attempt": 1,
        "nonce": NONCE, "payer": "acme", "job": "claims", "date": "2026-03-01", "array_index": 0,
        "array_size": 1, "command": list(command), "pre_command": [], "environ": {}, "secrets": {},
        "code": None, "job_role": None, "max_runtime": 60, "boot_timeout": 30, "stop_grace": 2,
        "max_lifetime": 400, "log_limit": 1 << 26, "volume_bytes": 20 << 30, **changes,
    }  # fmt: skip


def tarball(**files: str) -> bytes:
    """Return a gzipped tarball of text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def agent_script(user_data: bytes) -> str:
    """Return the shell script inside user data, as cloud-init would write it to a file."""
    message = email.message_from_bytes(gzip.decompress(user_data))
    parts = {part.get_content_type(): part for part in message.walk()}
    return parts["text/x-shellscript"].get_payload(decode=True).decode()


class Metadata(ThreadingHTTPServer):
    """IMDSv2 of one instance; tests change its attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MetadataHandler)
        self.spot_action = False
        self.credentials_after = 0.0
        self.asked: list[str] = []
        self.started = time.monotonic()
        self.access = {"AccessKeyId": "AKIDMACHINE", "SecretAccessKey": "s", "Token": "t"}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str) -> str | None:
        self.asked.append(path)
        role = "/latest/meta-data/iam/security-credentials/"
        if path == "/latest/dynamic/instance-identity/document":
            return json.dumps({"instanceId": INSTANCE, "region": REGION, "accountId": ACCOUNT})
        if path == "/latest/meta-data/spot/instance-action" and self.spot_action:
            return json.dumps({"action": "terminate"})
        if path.startswith(role) and time.monotonic() - self.started >= self.credentials_after:
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 21600))
            found = {"Code": "Success", "Expiration": end, **self.access}
            return "machine-role" if path == role else json.dumps(found)
        return None


class _MetadataHandler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        self._send(200, "the-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "the-token":
            self._send(401, "")
            return
        found = self.server.answer(self.path)
        self._send(404 if found is None else 200, found or "")

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@dataclass
class Machine:
    """Runs user data in a folder; what it left behind is read from the bucket."""

    home: Path
    endpoint: str
    metadata: Metadata
    python: str = sys.executable
    environ: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.s3 = boto3.client(
            "s3", REGION, endpoint_url=self.endpoint,
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        self.console = ""
        self.process: subprocess.Popen[str] | None = None

    def push(self, archive: bytes) -> str:
        digest = hashlib.sha256(archive).hexdigest()
        self.s3.put_object(Bucket=BUCKET, Key=contract.code_key(ENV, digest), Body=archive)
        return digest

    def start(self, settings: dict[str, object]) -> subprocess.Popen[str]:
        script = self.home / "part-001"
        script.write_text(agent_script(render_user_data(settings, agent=agent_source())))
        script.chmod(0o755)
        bin_folder = self.home / "bin"
        bin_folder.mkdir()
        if self.python:
            (bin_folder / "python3").symlink_to(self.python)
        environ = {
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "EPHEMERAL_EC2_POWEROFF": json.dumps(["/usr/bin/touch", str(self.home / "off")]),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata.url,
            **self.environ,
        }
        self.process = subprocess.Popen(
            [*self.wrapper, "/bin/sh", str(script)], cwd=self.home, env=environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self.process

    def wait(self, seconds: float = 60) -> dict[str, object]:
        assert self.process
        self.console, _ = self.process.communicate(timeout=seconds)
        return self.report()

    def run(self, settings: dict[str, object]) -> dict[str, object]:
        self.start(settings)
        return self.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    @property
    def is_off(self) -> bool:
        return (self.home / "off").exists()

    def report(self) -> dict[str, object]:
        return json.loads(self.read(contract.report_key(ENV, ARN)) or b"{}")

    def log(self) -> str:
        prefix = contract.machine_prefix(ENV, ARN) + "log/"
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return b"".join(self.read(entry["Key"]) for entry in found).decode(errors="replace")

    def read(self, key: str) -> bytes:
        with contextlib.suppress(self.s3.exceptions.NoSuchKey):
            return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return b""


def wait_until(question, seconds: float = 20, what: str = "it") -> None:
    """Poll until ``question()`` is true."""
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, f"{what} did not happen within {seconds}s"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def empty_bucket(machine: Machine) -> None:
    """Leave an existing, empty bucket."""
    with contextlib.suppress(machine.s3.exceptions.BucketAlreadyOwnedByYou):
        machine.s3.create_bucket(Bucket=BUCKET)
    for entry in machine.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        machine.s3.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.fixture(scope="module")
def endpoint():
    """Run moto on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def machine(endpoint, tmp_path):
    """A machine of its own with an empty bucket."""
    metadata = Metadata()
    made = Machine(tmp_path, endpoint, metadata)
    empty_bucket(made)
    yield made
    made.stop()
    made.s3.close()
    metadata.shutdown()
    metadata.server_close()
