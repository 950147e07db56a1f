"""``[ephemeral_ec2]`` of airflow.cfg as one frozen value, read on demand."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from airflow_ephemeral_ec2.exceptions import SettingsError

SECTION = "ephemeral_ec2"
_ENVIRONMENT = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")
_ROLE_ARN = re.compile(r"^arn:[a-z-]+:iam::[0-9]{12}:role/[!-~]+$")
DEFAULT_POLL_SECONDS = 4.0


@dataclass(frozen=True)
class Settings:
    """What the deployment says; everything else is in the table."""

    environment: str
    """Names this Airflow among all that share the bucket or the account."""
    bucket: str
    """The bucket of record."""
    region: str
    """Region of the bucket."""
    aws_conn_id: str
    """Connection that reads and writes the bucket."""
    poll_seconds: float
    """Seconds between two looks at EC2."""
    scheduler_role_arn: str = ""
    """Role of EventBridge Scheduler that ends machines at their limit; empty: no schedules."""
    scheduler_group: str = "default"


def read_settings(get: Callable[[str], str | None]) -> Settings:
    """
    Read the settings through ``get(option)``.

    :raises SettingsError: names all that is missing or wrong, at once
    """
    problems = []
    values = {name: get(name) or "" for name in ("environment", "bucket", "region")}
    for name, value in values.items():
        if not value:
            variable = f"AIRFLOW__{SECTION.upper()}__{name.upper()}"
            problems.append(f"{name} is missing (or set {variable})")
    if values["environment"] and not _ENVIRONMENT.match(values["environment"]):
        problems.append(
            f"environment {values['environment']!r}: allowed are up to 40 of a-z, 0-9 and -"
        )
    poll_text = get("poll_interval") or str(DEFAULT_POLL_SECONDS)
    try:
        poll = float(poll_text)
    except ValueError:
        poll = 0.0
    if not 0.2 <= poll <= 60:
        problems.append(f"poll_interval {poll_text!r}: seconds from 0.2 to 60")
    role = get("scheduler_role_arn") or ""
    if role and not _ROLE_ARN.match(role):
        problems.append(
            f"scheduler_role_arn {role!r}: write it like arn:aws:iam::123456789012:role/NAME"
        )
    if problems:
        raise SettingsError(tuple(problems))
    return Settings(
        environment=values["environment"],
        bucket=values["bucket"],
        region=values["region"],
        aws_conn_id=get("aws_conn_id") or "aws_default",
        poll_seconds=poll,
        scheduler_role_arn=role,
        scheduler_group=get("scheduler_group") or "default",
    )


def settings_from_airflow() -> Settings:
    """
    Read airflow.cfg and ``AIRFLOW__EPHEMERAL_EC2__*``.

    :raises SettingsError: names all that is missing or wrong, at once; or Airflow cannot read them
    """
    from airflow.providers.common.compat.sdk import conf  # noqa: PLC0415 - slow, and the CLI runs without it

    def get(option: str) -> str | None:
        try:
            value: str | None = conf.get(SECTION, option, fallback=None)
        except Exception as error:
            # Its words may hold what a command or a secrets backend said.
            problem = f"{option} cannot be read ({type(error).__name__} of Airflow)"
            raise SettingsError((problem,)) from error
        return value

    return read_settings(get)
