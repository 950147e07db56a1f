"""Settings and AWS clients of a call: inside an Airflow by its connection, elsewhere as any AWS tool."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import ConfigurationError, SettingsError
from airflow_ephemeral_ec2.hooks.clients import Clients, clients_from_environment
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.settings import SECTION, Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MARKS = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__SECRETS__BACKEND", "AIRFLOW_CONFIG")


@dataclass(frozen=True)
class Given:
    """Options of the command line; None where the user said nothing."""

    environment: str | None = None
    bucket: str | None = None
    region: str | None = None
    endpoint_url: str | None = None

    def setting(self, name: str) -> str | None:
        """Return the option's value for a setting."""
        known = {"environment": self.environment, "bucket": self.bucket, "region": self.region}
        return known.get(name)


class Access:
    """The bucket of record and the fleets, as this call reaches them."""

    def __init__(self, settings: Settings, make_clients: Callable[[str, str], Clients]) -> None:
        """Take a way to clients by Airflow connection and region."""
        self.settings = settings
        self._make_clients = functools.lru_cache(maxsize=None)(make_clients)
        clients = self._make_clients(settings.aws_conn_id, settings.region)
        self.store = JobStore(clients.s3, settings.bucket, settings.environment)

    def fleet_for(self, aws_conn_id: str, region: str) -> Fleet:
        clients = self._make_clients(aws_conn_id, region)
        return Fleet(clients, self.settings.environment, region)


def open_access(given: Given) -> Access:
    """
    Find the settings and a way to AWS.

    A row's Airflow connection is used where an Airflow is set up on this machine, or where
    ``AIRFLOW_CONN_...`` defines it; ``--endpoint-url`` and machines without Airflow use what the
    AWS SDKs find: environment, profile, ``AWS_ENDPOINT_URL``.

    :raises ConfigurationError: settings are missing or wrong; all of them are named
    """
    settings = find_settings(given)

    def make_clients(aws_conn_id: str, region: str) -> Clients:
        if given.endpoint_url is None and uses_airflow(os.environ, aws_conn_id):
            return _clients_of_connection(aws_conn_id, region)
        return clients_from_environment(region, given.endpoint_url)

    return Access(settings, make_clients)


def find_settings(given: Given) -> Settings:
    """
    Read options, then ``AIRFLOW__EPHEMERAL_EC2__*``, then airflow.cfg where there is one.

    :raises ConfigurationError: settings are missing or wrong; all of them are named
    """
    try:
        return read_settings(functools.partial(_find_setting, given))
    except SettingsError as error:
        msg = f"{error}; or give --environment, --bucket and --region"
        raise ConfigurationError(msg) from error


def known_setting(given: Given, name: str) -> str | None:
    """Look a setting up without Airflow; None where only Airflow could tell."""
    return given.setting(name) or os.environ.get(f"AIRFLOW__{SECTION.upper()}__{name.upper()}")


def _find_setting(given: Given, name: str) -> str | None:
    found = known_setting(given, name)
    if found or not is_airflow_here(os.environ):
        return found
    from airflow.providers.common.compat.sdk import conf  # noqa: PLC0415 - slow, and rarely needed

    value: str | None = conf.get(SECTION, name, fallback=None)
    return value


def uses_airflow(environ: Mapping[str, str], aws_conn_id: str) -> bool:
    """Say whether a connection is Airflow's to find."""
    return f"AIRFLOW_CONN_{aws_conn_id.upper()}" in environ or is_airflow_here(environ)


def is_airflow_here(environ: Mapping[str, str]) -> bool:
    """Say whether an Airflow is set up; importing one that is not would make it a home."""
    if any(environ.get(mark) for mark in _MARKS):
        return True
    home = Path(environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    return (home / "airflow.cfg").is_file()


def _clients_of_connection(aws_conn_id: str, region: str) -> Clients:
    # As Airflow's own commands do: connections come from the database, not from a task's supervisor.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from airflow_ephemeral_ec2.hooks.ec2 import connect  # noqa: PLC0415 - imports Airflow: 2 s

    return connect(aws_conn_id, region)
