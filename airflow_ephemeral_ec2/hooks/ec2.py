"""EphemeralEC2Hook: the Airflow connection behind bucket, fleet and controller."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_ephemeral_ec2.exceptions import AccessError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call
from airflow_ephemeral_ec2.hooks.clients import Clients
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.lifetime_schedule import LifetimeSchedule

if TYPE_CHECKING:
    from botocore.config import Config

    from airflow_ephemeral_ec2.settings import Settings

DEFAULT_CONNECTION = "aws_default"


class EphemeralEC2Hook(AwsBaseHook):
    """
    Disposable EC2 instances through an Airflow connection of type ``aws``.

    :param aws_conn_id: Airflow connection; its extras (role, endpoint, region) are honoured
    :param region_name: AWS region
    """

    def __init__(
        self, aws_conn_id: str | None = "aws_default", region_name: str | None = None
    ) -> None:
        super().__init__(aws_conn_id=aws_conn_id, region_name=region_name, client_type="ec2")

    def make_clients(self) -> Clients:
        """
        Make one boto3 client per service.

        :raises AccessError: the connection does not exist
        """
        try:
            return self._make_clients()
        except AirflowNotFoundException as error:
            raise AccessError(
                f"Airflow connection {self.aws_conn_id!r}",
                "is not defined.",
                "Create it (type aws), or name another one in the table's aws_conn_id.",
            ) from error

    def _make_clients(self) -> Clients:
        # A connection with a role assumes it here, and may be refused.
        with aws_call(f"use Airflow connection {self.aws_conn_id!r}"):
            # The amazon provider takes boto3's own search for any missing connection. That is fine
            # for the default; a connection that somebody named must be the one that is used.
            if self.aws_conn_id not in (None, DEFAULT_CONNECTION):
                self.get_connection(self.aws_conn_id)
            session = self.get_session(region_name=self.region_name)
            endpoints = self.conn_config

        def source(service: str, config: Config) -> Any:  # noqa: ANN401 - boto3's own type
            extra = endpoints.botocore_config
            return session.client(
                service,
                config=extra.merge(config) if extra else config,
                endpoint_url=endpoints.get_service_endpoint_url(service),
                verify=self.verify,
            )

        return Clients(source)


CLIENTS_SECONDS = 600.0
"""Clients are made anew after this long, so that a triggerer sees a connection's new keys."""


def connect(aws_conn_id: str, region: str) -> Clients:
    """
    Return the clients of a connection and region, shared by the process.

    :raises AccessError: the connection does not exist
    """
    return _connect(aws_conn_id, region, int(time.monotonic() // CLIENTS_SECONDS))


@functools.lru_cache(maxsize=32)
def _connect(aws_conn_id: str, region: str, _generation: int) -> Clients:
    return EphemeralEC2Hook(aws_conn_id=aws_conn_id, region_name=region).make_clients()


def open_store(settings: Settings) -> JobStore:
    """Open the bucket of record through its connection."""
    clients = connect(settings.aws_conn_id, settings.region)
    return JobStore(clients.s3, settings.bucket, settings.environment)


def open_fleet(settings: Settings, aws_conn_id: str, region: str) -> Fleet:
    """Reach the machines of this environment through a row's connection and region."""
    return Fleet(connect(aws_conn_id, region), settings.environment, region)


def open_controller(settings: Settings) -> Controller:
    """Make a controller for this process."""
    fleet_for = functools.partial(open_fleet, settings)
    role, group = settings.scheduler_role_arn, settings.scheduler_group
    backstop = LifetimeSchedule(role, group) if role else None
    return Controller(open_store(settings), fleet_for, _connect.cache_clear, backstop)
