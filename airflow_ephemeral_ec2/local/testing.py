"""
For tests: a local EC2 in a process of its own.

::

    with local_ec2(seed={"buckets": ["payer-data"]}) as cloud:
        ec2 = cloud.client("ec2")
        cloud.add_fault(action="RunInstances", code="InsufficientInstanceCapacity")
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

_READY_SECONDS = 30.0
_STOP_SECONDS = 20.0


class _GrowingLog:
    """The API log, of which each line is parsed once, however often somebody waits for the next."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._offset = 0
        self._lock = threading.Lock()

    def read(self, path: Path) -> list[dict[str, Any]]:
        with self._lock, path.open("rb") as log:
            log.seek(self._offset)
            # A line that is half written is read when it is whole.
            whole, end, _ = log.read().rpartition(b"\n")
            self._offset += len(whole) + len(end)
            self._lines += map(json.loads, whole.splitlines())
            return list(self._lines)


@dataclass(frozen=True)
class LocalCloud:
    """A running local EC2, seen from outside."""

    url: str
    home: Path
    instances_folder: Path
    api_log: Path
    access_key_id: str
    secret_access_key: str
    account: str
    process: "subprocess.Popen[str]"
    _log: _GrowingLog = field(default_factory=_GrowingLog, repr=False, compare=False)

    @property
    def environ(self) -> dict[str, str]:
        """What a program needs in its environment to use this cloud as AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, region: str = "us-east-1", **options: Any) -> Any:  # noqa: ANN401
        """Make a boto3 client with the administrator's keys; ``options`` go to boto3."""
        keys = {
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
        }
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        given = {"endpoint_url": self.url, "region_name": region, "config": config}
        return boto3.client(service, **{**given, **keys, **options})

    def lines(self) -> list[dict[str, Any]]:
        """Read the API log as far as it goes."""
        return self._log.read(self.api_log)

    def calls(self, action: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("action") == action]

    def states(self, instance_id: str) -> list[str]:
        """Return the states that an instance went through."""
        return [
            line["state"]
            for line in self.lines()
            if line.get("event") == "state" and line["instance_id"] == instance_id
        ]

    def health(self) -> dict[str, Any]:
        return dict(self._ask("GET", "health"))

    def instances(self) -> dict[str, str]:
        """Return the state of every visible instance."""
        found = self._ask("GET", "instances")["instances"]
        return {str(one): str(state) for one, state in found.items()}

    def metadata_url(self, instance_id: str) -> str:
        """Return where an instance's own metadata service listens."""
        return str(self._ask("GET", "instances")["metadata"][instance_id])

    def seed(self, **wanted: object) -> None:
        """Seed more while it runs; see ``seeding.Seed`` for the names."""
        self._ask("POST", "seed", wanted)

    def add_fault(self, **fault: object) -> None:
        """Add a rule; see ``faults.Fault`` for the names."""
        self._ask("POST", "faults", fault)

    def faults(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "faults")["faults"])

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    def kill(self, instance_id: str, how: str = "host", **more: object) -> None:
        """Harm an instance; see ``harms.HOWS`` for what can befall it."""
        self._ask("POST", f"instances/{instance_id}/kill", {"how": how, **more})

    def add_harm(self, how: str, **more: object) -> None:
        """Harm the next instance that is launched like ``match``; see ``harms.Harm``."""
        self._ask("POST", "harms", {"how": how, **more})

    def harms(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "harms")["harms"])

    def clear_harms(self) -> None:
        self._ask("DELETE", "harms")

    def wait_for(
        self, condition: Callable[[], bool], seconds: float = 60.0, what: str = "condition"
    ) -> None:
        """
        Poll until something holds.

        :raises TimeoutError: it did not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                msg = f"{what} not met within {seconds} s; last states: {self.instances()}"
                raise TimeoutError(msg)
            time.sleep(0.02)

    def wait_for_state(self, instance_id: str, state: str, seconds: float = 60.0) -> None:
        self.wait_for(lambda: state in self.states(instance_id), seconds, f"{instance_id} {state}")

    def stop(self) -> int:
        """Ask the server to end, as Ctrl-C does, and wait until it has."""
        self.process.terminate()
        return self.process.wait(_STOP_SECONDS)

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}/local-ec2/{path}", data, method=method)  # noqa: S310 - ours
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
                return json.load(answer)
        except HTTPError as error:
            msg = f"{method} {path}: {json.load(error)['error']}"
            raise ValueError(msg) from error


@contextmanager
def local_ec2(
    seed: Mapping[str, object] | None = None, home: Path | None = None, **options: object
) -> Iterator[LocalCloud]:
    """
    Run a local EC2 on a free port while the block runs.

    :param seed: as in ``seeding.Seed``; None seeds the defaults.
    :param home: folder for logs and instances; None makes one that is deleted afterwards.
    :param options: of the command line, with underscores: ``pending=0.1``, ``stop_grace=1``.
    :raises RuntimeError: the server did not start; has its stderr.
    """
    with tempfile.TemporaryDirectory(prefix="local-ec2-") as scratch:
        place = home or Path(scratch)
        Path(scratch).chmod(0o755)  # instances of a root server are other users
        process = _start(place, seed or {}, options)
        try:
            yield _ready(process, place)
        finally:
            if process.poll() is None:
                process.terminate()
            _finish(process)


def _start(
    home: Path, seed: Mapping[str, object], options: Mapping[str, object]
) -> "subprocess.Popen[str]":
    home.mkdir(parents=True, exist_ok=True)
    seed_file = home / "seed.json"
    seed_file.write_text(json.dumps(seed), encoding="utf-8")
    arguments = ["--home", str(home), "--seed", str(seed_file), "--end-with-stdin"]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    with (home / "stderr.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "airflow_ephemeral_ec2.local", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def _ready(process: "subprocess.Popen[str]", home: Path) -> LocalCloud:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        process.wait(_READY_SECONDS)
        errors = (home / "stderr.log").read_text("utf-8")
        msg = f"the local EC2 did not start (exit {process.returncode}): {errors}"
        raise RuntimeError(msg)
    facts = json.loads(line)
    return LocalCloud(
        url=facts["url"],
        home=Path(facts["home"]),
        instances_folder=Path(facts["instances"]),
        api_log=Path(facts["api_log"]),
        access_key_id=facts["access_key_id"],
        secret_access_key=facts["secret_access_key"],
        account=facts["account"],
        process=process,
    )


def _finish(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
