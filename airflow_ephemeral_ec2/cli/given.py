"""Settings of a call: options, then the environment, then the Airflow of this machine."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import ConfigurationError, SettingsError
from airflow_ephemeral_ec2.settings import SECTION, Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

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
