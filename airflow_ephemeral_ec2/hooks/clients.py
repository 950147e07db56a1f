"""The AWS clients that a launch needs, made once per connection and region."""

from __future__ import annotations

import threading
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

import boto3
import botocore.utils
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client

LAUNCH_CONFIG = Config(
    # botocore retries capacity errors (HTTP 500) by itself; the launch protocol owns its retries.
    retries={"total_max_attempts": 1, "mode": "standard"},
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=16,
)
READ_CONFIG = Config(
    retries={"total_max_attempts": 4, "mode": "standard"},
    connect_timeout=5,
    read_timeout=20,
    max_pool_connections=16,
)
BRIEF_CONFIG = Config(
    # Of what is nice to have: nobody waits long for it.
    retries={"total_max_attempts": 2, "mode": "standard"},
    connect_timeout=2,
    read_timeout=5,
)

QUICK_CONFIG = Config(
    # The end of a machine waits for it: two seconds at most.
    retries={"total_max_attempts": 1, "mode": "standard"},
    connect_timeout=1,
    read_timeout=1,
)


def parse_time(value: object) -> datetime:
    """Parse a timestamp of an AWS answer: the ISO form at once, all others as botocore does."""
    if isinstance(value, str) and "T" in value:
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    found: datetime = botocore.utils.parse_timestamp(value)
    return found


def speed_up_timestamps(session: boto3.Session) -> None:
    """
    Let the clients of a session parse timestamps quickly.

    Each key of a listing has one and each instance four; botocore's own parser takes 40% of the
    CPU of a listing (benchmarks/waiting).
    """
    factory = session._session.get_component("response_parser_factory")  # noqa: SLF001 - boto3 has no public way to its botocore session
    factory.set_parser_defaults(timestamp_parser=parse_time)


class ClientSource(Protocol):
    """Something that makes a boto3 client for a service."""

    def __call__(self, service: str, config: Config) -> Any: ...  # noqa: ANN401 - boto3's own type


class Clients:
    """
    One boto3 client per service and retry policy, made when first used.

    Making an EC2 client takes half a second, and most tasks only need S3.
    """

    def __init__(self, source: ClientSource) -> None:
        self._source = source
        # Sessions of boto3 may not make two clients at the same time.
        self._lock = threading.Lock()

    def _make(self, service: str, config: Config) -> Any:  # noqa: ANN401
        with self._lock:
            return self._source(service, config)

    @cached_property
    def launch(self) -> EC2Client:
        """RunInstances only: one try."""
        return cast("EC2Client", self._make("ec2", LAUNCH_CONFIG))

    @cached_property
    def ec2(self) -> EC2Client:
        return cast("EC2Client", self._make("ec2", READ_CONFIG))

    @cached_property
    def quick_ec2(self) -> EC2Client:
        """For what must not take long, and may fail."""
        return cast("EC2Client", self._make("ec2", QUICK_CONFIG))

    @cached_property
    def s3(self) -> S3Client:
        return cast("S3Client", self._make("s3", READ_CONFIG))

    @cached_property
    def scheduler(self) -> Any:  # noqa: ANN401 - has no stubs here
        return self._make("scheduler", BRIEF_CONFIG)

    @cached_property
    def account_id(self) -> str:
        """Account of these credentials, asked once: STS GetCallerIdentity."""
        return str(self._make("sts", BRIEF_CONFIG).get_caller_identity()["Account"])

    @cached_property
    def sqs(self) -> Any:  # noqa: ANN401 - has no stubs here
        return self._make("sqs", READ_CONFIG)

    @cached_property
    def ssm(self) -> Any:  # noqa: ANN401 - has no stubs here
        return self._make("ssm", READ_CONFIG)


def clients_from_environment(region: str, endpoint_url: str | None = None) -> Clients:
    """Make clients as any AWS tool does (environment, profile), without Airflow."""
    session = boto3.Session(region_name=region)
    speed_up_timestamps(session)

    def source(service: str, config: Config) -> Any:  # noqa: ANN401
        return session.client(service, config=config, endpoint_url=endpoint_url)

    return Clients(source)
