"""The fake AWS in a process of its own, so that its CPU is nobody's, and its control."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.endpoint.server import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
__all__ = ["BUCKET", "REGION", "EndpointProcess", "fake_aws"]


class EndpointProcess:
    """What a benchmark may ask of its endpoint, beside the AWS API."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid
        self.url = f"http://127.0.0.1:{port}"

    @property
    def environ(self) -> dict[str, str]:
        """Variables that lead AWS clients and Airflow's ``aws_default`` here."""
        extra = json.dumps({"endpoint_url": self.url, "region_name": REGION})
        connection = {
            "conn_type": "aws",
            "login": "AKIABENCHMARK0000000",
            "password": "benchmark",
            "extra": extra,
        }
        return {
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
            "AWS_ACCESS_KEY_ID": "AKIABENCHMARK0000000",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def ask(self, command: str, **body: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request("POST", f"/-/{command}", json.dumps(body))
            answer = connection.getresponse()
            return dict(json.loads(answer.read()))
        finally:
            connection.close()

    def calls(self) -> dict[str, int]:
        """Count the API actions so far: ``ec2:DescribeInstances`` -> 12."""
        return dict(self.ask("counts")["calls"])

    def load(self, path: Path, items: Iterable[Mapping[str, object]]) -> None:
        """Lay objects (``key``, ``body``) and instances without a call each."""
        with path.open("w") as file:
            file.writelines(json.dumps(item) + "\n" for item in items)
        answer = self.ask("load", path=str(path))
        path.unlink()
        if "loaded" not in answer:
            raise RuntimeError(str(answer))


@contextlib.contextmanager
def fake_aws() -> Iterator[EndpointProcess]:
    """Run an endpoint that knows nothing yet."""
    command = [sys.executable, "-m", "benchmarks.endpoint"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            began = json.loads(process.stdout.readline())
            yield EndpointProcess(began["port"], began["pid"])
        finally:
            process.terminate()
