"""A limit that needs nobody: EventBridge Scheduler ends the machine, should all others be dead."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, error_code

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.clients import Clients
    from airflow_ephemeral_ec2.settings import Settings

log = logging.getLogger(__name__)
TARGET = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
"""Universal target (EventBridge Scheduler user guide, "Using universal targets")."""
RETRY_ATTEMPTS = 185
RETRY_SECONDS = 86_400


class Backstop(Protocol):
    """Something outside this process that ends a machine at a time."""

    @property
    def is_wanted(self) -> bool: ...
    def arm(self, clients: Clients, name: str, instance_id: str, ends_at: float) -> str | None: ...
    def disarm(self, clients: Clients, name: str) -> None: ...


class NoBackstop:
    """Nothing is armed: the setting ``scheduler_role_arn`` is empty."""

    is_wanted = False

    def arm(self, clients: Clients, name: str, instance_id: str, ends_at: float) -> str | None:  # noqa: ARG002 - as Backstop
        return None

    def disarm(self, clients: Clients, name: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class LifetimeSchedule:
    """
    One-time schedules, named after the launch's client token; they delete themselves.

    A schedule that cannot be made fails nothing: the reaper covers the machine.
    """

    role_arn: str
    """Role that may terminate this environment's instances (docs/operating.md#iam)."""
    group: str = "default"
    is_wanted: ClassVar[bool] = True

    def arm(self, clients: Clients, name: str, instance_id: str, ends_at: float) -> str | None:
        """
        Let a machine end at a time (seconds since 1970); return why not, or None.

        Safe to repeat: a schedule of this name is this machine's.
        """
        try:
            with aws_call("scheduler:CreateSchedule"):
                self._create(clients.scheduler, name, instance_id, ends_at)
        except AwsError as error:
            log.warning("no scheduled end for %s: %s", instance_id, error)
            return f"no scheduled end for {instance_id}, the reaper covers it: {error}"
        return None

    def _create(self, scheduler: Any, name: str, instance_id: str, ends_at: float) -> None:  # noqa: ANN401 - has no stubs here
        moment = datetime.fromtimestamp(ends_at, UTC)
        target = {
            "Arn": TARGET,
            "RoleArn": self.role_arn,
            "Input": json.dumps({"InstanceIds": [instance_id]}),
            "RetryPolicy": {
                "MaximumRetryAttempts": RETRY_ATTEMPTS,
                "MaximumEventAgeInSeconds": RETRY_SECONDS,
            },
        }
        try:
            scheduler.create_schedule(
                Name=name,
                GroupName=self.group,
                ScheduleExpression=f"at({moment:%Y-%m-%dT%H:%M:%S})",
                ScheduleExpressionTimezone="UTC",
                FlexibleTimeWindow={"Mode": "OFF"},
                ActionAfterCompletion="DELETE",
                Target=target,
            )
        except ClientError as error:
            if error_code(error) != "ConflictException":
                raise

    def disarm(self, clients: Clients, name: str) -> None:
        """Delete the schedule of a machine that is gone; one that stays does no harm."""
        try:
            with aws_call("scheduler:DeleteSchedule"):
                clients.scheduler.delete_schedule(Name=name, GroupName=self.group)
        except AwsError as error:
            log.debug("schedule %s stays: %s", name, error)


class ArmedOnce:
    """A backstop that knows which machines this process has armed, or tried to."""

    def __init__(self, backstop: Backstop) -> None:
        self._backstop = backstop
        self._tried: set[str] = set()

    @property
    def is_wanted(self) -> bool:
        return self._backstop.is_wanted

    def arm(self, clients: Clients, name: str, instance_id: str, ends_at: float) -> str | None:
        """Arm a machine; return why not, or None."""
        self._tried.add(instance_id)
        return self._backstop.arm(clients, name, instance_id, ends_at)

    def disarm(self, clients: Clients, name: str) -> None:
        self._backstop.disarm(clients, name)

    def find_untried(self, instance_ids: AbstractSet[str]) -> AbstractSet[str]:
        """Say which of all machines that are out were never armed here; forget the others."""
        self._tried &= instance_ids
        return instance_ids - self._tried


def find_backstop(settings: Settings) -> Backstop:
    """Choose by ``[ephemeral_ec2] scheduler_role_arn``."""
    role, group = settings.scheduler_role_arn, settings.scheduler_group
    return LifetimeSchedule(role, group) if role else NoBackstop()
