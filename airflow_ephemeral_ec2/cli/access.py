"""AWS clients of a call: inside an Airflow by its connection, elsewhere as any AWS tool."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.cli.given import Given, find_settings, uses_airflow
from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call
from airflow_ephemeral_ec2.hooks.clients import Clients, clients_from_environment
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.settings import Settings


class Access:
    """The bucket of record and the fleets, as this call reaches them."""

    def __init__(self, settings: Settings, make_clients: Callable[[str, str], Clients]) -> None:
        """Take a way to clients by Airflow connection and region."""
        self.settings = settings
        self.clients_for = functools.lru_cache(maxsize=None)(make_clients)
        clients = self.clients_for(settings.aws_conn_id, settings.region)
        self.store = JobStore(clients.s3, settings.bucket, settings.environment)

    def fleet_for(self, aws_conn_id: str, region: str) -> Fleet:
        clients = self.clients_for(aws_conn_id, region)
        return Fleet(clients, self.settings.environment, region)


def open_access(given: Given) -> Access:
    """
    Find the settings and a way to AWS.

    A row's Airflow connection is used where an Airflow is set up on this machine, or where
    ``AIRFLOW_CONN_...`` defines it; ``--endpoint-url`` and machines without Airflow use what the
    AWS SDKs find: environment, profile, ``AWS_ENDPOINT_URL``.

    :raises ConfigurationError: settings are missing or wrong; all of them are named
    :raises AccessError: the connection or profile does not exist
    """
    settings = find_settings(given)

    def make_clients(aws_conn_id: str, region: str) -> Clients:
        if given.endpoint_url is None and uses_airflow(os.environ, aws_conn_id):
            return _clients_of_connection(aws_conn_id, region)
        return clients_from_environment(region, given.endpoint_url)

    try:
        with aws_call("find AWS credentials"):
            return Access(settings, make_clients)
    except ValueError as error:
        msg = f"--endpoint-url or AWS_ENDPOINT_URL: {error}; write it like http://127.0.0.1:5000"
        raise ConfigurationError(msg) from error


def _clients_of_connection(aws_conn_id: str, region: str) -> Clients:
    # As Airflow's own commands do: connections come from the database, not from a task's supervisor.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    # Airflow logs to stdout, which belongs to our results.
    with contextlib.redirect_stdout(sys.stderr):
        from airflow_ephemeral_ec2.hooks.ec2 import connect  # noqa: PLC0415 - imports Airflow: 2 s

        return connect(aws_conn_id, region)
