"""The AWS clients that a launch needs, made once per connection and region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client

LAUNCH_CONFIG = Config(
    # botocore retries capacity errors (HTTP 500) by itself; the launch protocol owns its retries.
    retries={"total_max_attempts": 1, "mode": "standard"},
    connect_timeout=5,
    read_timeout=30,
)
READ_CONFIG = Config(
    retries={"total_max_attempts": 4, "mode": "standard"}, connect_timeout=5, read_timeout=20
)


class ClientSource(Protocol):
    """Something that makes a boto3 client for a service."""

    def __call__(self, service: str, config: Config) -> Any: ...  # noqa: ANN401 - boto3's own type


@dataclass(frozen=True)
class Clients:
    """One boto3 client per service and retry policy."""

    launch: EC2Client
    """RunInstances only: one try."""
    ec2: EC2Client
    s3: S3Client
    ssm: Any


def make_clients(source: ClientSource) -> Clients:
    return Clients(
        launch=source("ec2", LAUNCH_CONFIG),
        ec2=source("ec2", READ_CONFIG),
        s3=source("s3", READ_CONFIG),
        ssm=source("ssm", READ_CONFIG),
    )


def clients_from_environment(region: str, endpoint_url: str | None = None) -> Clients:
    """Make clients as any AWS tool does (environment, profile), without Airflow."""
    session = boto3.Session(region_name=region)

    def source(service: str, config: Config) -> Any:  # noqa: ANN401
        return session.client(service, config=config, endpoint_url=endpoint_url)

    return make_clients(source)
