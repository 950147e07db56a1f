"""The local EC2 as a child of this call: started, seeded, and gone with it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from airflow_ephemeral_ec2.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
_EXTRA = ("moto", "flask", "werkzeug")
_HERE = "127.0.0.1"


@dataclass(frozen=True)
class LocalCloud:
    """A running local EC2 and its administrator's keys."""

    url: str
    home: str
    api_log: str
    access_key_id: str
    secret_access_key: str
    process: subprocess.Popen[str]

    def environ(self, region: str) -> dict[str, str]:
        """Say what a program needs in its environment to take this cloud for AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def seed(self, wanted: Mapping[str, object]) -> None:
        """
        Make something exist.

        :raises ConfigurationError: the local EC2 cannot
        """
        request = Request(  # noqa: S310 - our own server
            f"{self.url}/local-ec2/seed", json.dumps(wanted).encode(), method="POST"
        )
        try:
            # A proxy of the environment must not see what goes to this machine.
            with build_opener(ProxyHandler({})).open(request, timeout=30):
                pass
        except HTTPError as error:
            msg = f"the local EC2 cannot be seeded: {json.load(error)['error']}"
            raise ConfigurationError(msg) from error


def use_only(cloud: LocalCloud, region: str) -> None:
    """Point this process at the local EC2: no key, profile or endpoint of the user stays."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(cloud.environ(region))
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    for name in ("NO_PROXY", "no_proxy"):
        others = os.environ.get(name)
        os.environ[name] = f"{others},{_HERE}" if others else _HERE


@contextmanager
def local_cloud(
    home: Path,
    seeds: Sequence[Mapping[str, object]],
    port: int = 0,
    faults: Path | None = None,
) -> Iterator[LocalCloud]:
    """
    Run a local EC2 while the block runs; with the block, or this process, it ends.

    :param home: folder for its logs and instances
    :param faults: a ``faults.yaml`` that holds from the start
    :raises ConfigurationError: it cannot be started
    """
    _require_extra()
    home.mkdir(parents=True, exist_ok=True)
    process = _start(home, seeds[0] if seeds else {}, port, faults)
    try:
        cloud = _wait_until_ready(process, home)
        for more in seeds[1:]:
            cloud.seed(more)
        yield cloud
    finally:
        _stop(process)


def _require_extra() -> None:
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        msg = (
            f"the local EC2 needs {', '.join(missing)}. "
            'Run: pip install "airflow-provider-ephemeral-ec2[local]"'
        )
        raise ConfigurationError(msg)


def _start(
    home: Path, seed: Mapping[str, object], port: int, faults: Path | None
) -> subprocess.Popen[str]:
    seed_file = home / "seed.json"
    seed_file.write_text(json.dumps(seed), encoding="utf-8")
    module = ["-m", "airflow_ephemeral_ec2.local", "--end-with-stdin"]
    places = ["--home", str(home), "--seed", str(seed_file), "--port", str(port)]
    places += ["--faults", str(faults.absolute())] if faults else []
    with (home / "stderr.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, *module, *places],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # A profile of the user that this machine lacks would stop it.
            env={name: v for name, v in os.environ.items() if not name.startswith("AWS_")},
            # Ctrl-C is ours: the attempt is ended first, then the cloud under it.
            start_new_session=True,
        )


def _wait_until_ready(process: subprocess.Popen[str], home: Path) -> LocalCloud:
    line = _read_line(process.stdout)
    if not line:
        process.kill()
        words = (home / "stderr.log").read_text(encoding="utf-8").strip().splitlines()
        why = words[-1] if words else "it said nothing"
        msg = f"the local EC2 did not start: {why} (see {home / 'stderr.log'})"
        raise ConfigurationError(msg)
    facts = json.loads(line)
    names = ("url", "home", "api_log", "access_key_id", "secret_access_key")
    return LocalCloud(**{name: str(facts[name]) for name in names}, process=process)


def _read_line(stream: IO[str] | None) -> str:
    if stream is None or not select.select([stream], [], [], READY_SECONDS)[0]:
        return ""
    return stream.readline()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
