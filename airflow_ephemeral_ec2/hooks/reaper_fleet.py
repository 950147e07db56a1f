"""The EC2 calls of the reaper: it sees only its own environment, and ends many at once."""

from __future__ import annotations

import logging
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from airflow_ephemeral_ec2.exceptions import AwsError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.aws_errors import aws_call, error_code
from airflow_ephemeral_ec2.model.plan import (
    TAG_ATTEMPT,
    TAG_ENVIRONMENT,
    TAG_JOB,
    TAG_JOBKEY,
    TAG_MAX_LIFETIME,
    TAG_PAYER,
)
from airflow_ephemeral_ec2.model.reap import SeenMachine
from airflow_ephemeral_ec2.model.sweep import MAX_FILTER_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)
_ALIVE = {
    "Name": "instance-state-name",
    "Values": ["pending", "running", "shutting-down", "stopping", "stopped"],
}
BATCH = 100
"""TerminateInstances takes 1,000 ids; AWS recommends smaller batches (EC2 API reference)."""


class ReaperFleet:
    """
    Everything that carries one environment's tag in one region.

    ``now`` is EC2's own time, of its last answer (seconds since 1970).
    """

    def __init__(self, ec2: EC2Client, environment: str, region: str) -> None:
        self._ec2 = ec2
        self.environment, self.region = environment, region
        self.now = 0.0

    def list_machines(self) -> list[SeenMachine]:
        """
        Return all machines of the environment that are not terminated.

        :raises AwsError: EC2 could not be asked; nothing is concluded from that
        """
        found = self._instances([self._own, _ALIVE])
        # The tag decides once more, whatever the filter did: nobody else's machine is touched.
        return [self._machine(item) for item in found if self._is_ours(item.get("Tags"))]

    def list_leftovers(self) -> list[str]:
        """
        Return the ids of volumes and network interfaces that nothing uses.

        :raises AwsError: EC2 could not be asked
        """
        unused = [self._own, {"Name": "status", "Values": ["available"]}]
        volumes = [v for page in self._pages("describe_volumes", unused) for v in page["Volumes"]]
        interfaces = [
            interface
            for page in self._pages("describe_network_interfaces", unused)
            for interface in page["NetworkInterfaces"]
        ]
        found = [v["VolumeId"] for v in volumes if self._is_ours(v.get("Tags"))]
        ours = [i for i in interfaces if self._is_ours(i.get("TagSet"))]
        return found + [i["NetworkInterfaceId"] for i in ours]

    def find_untagged(self, instance_ids: Sequence[str]) -> list[str]:
        """
        Return which of these machines live without this environment's tag.

        :raises AwsError: EC2 could not be asked
        """
        found = []
        for start in range(0, len(instance_ids), MAX_FILTER_VALUES):
            ids = list(instance_ids[start : start + MAX_FILTER_VALUES])
            found += self._instances([{"Name": "instance-id", "Values": ids}, _ALIVE])
        return [item["InstanceId"] for item in found if not self._is_ours(item.get("Tags"))]

    def end(self, resource_ids: Sequence[str], *, force: bool = False) -> dict[str, str]:
        """End machines, volumes and interfaces; return id -> why for those that could not be."""
        machines = [one for one in resource_ids if one.startswith("i-")]
        problems: dict[str, str] = {}
        for start in range(0, len(machines), BATCH):
            problems |= self._terminate(machines[start : start + BATCH], force=force)
        for one in resource_ids:
            if not one.startswith("i-"):
                problems |= self._try(one, lambda one=one: self._delete(one))
        return problems

    def _terminate(self, ids: Sequence[str], *, force: bool) -> dict[str, str]:
        """One bad id fails a whole call: halve until the bad one is alone."""
        how: dict[str, Any] = {"Force": True, "SkipOsShutdown": True} if force else {}
        try:
            with aws_call("ec2:TerminateInstances"):
                self._ec2.terminate_instances(InstanceIds=list(ids), **how)
        except AwsError as error:
            if isinstance(error, AwsUnavailableError):
                # Not because of one of them: more calls would only make it worse.
                return dict.fromkeys(ids, str(error))
            if len(ids) > 1:
                half = len(ids) // 2
                first = self._terminate(ids[:half], force=force)
                return first | self._terminate(ids[half:], force=force)
            return self._insist(ids[0], error)
        return {}

    def _insist(self, instance_id: str, error: Exception) -> dict[str, str]:
        cause = error.__cause__
        code = error_code(cause) if isinstance(cause, ClientError) else ""
        if code == "InvalidInstanceID.NotFound":
            return {}
        if code != "OperationNotPermitted":
            return {instance_id: str(error)}

        def unprotect() -> None:
            self._ec2.modify_instance_attribute(
                InstanceId=instance_id, DisableApiTermination={"Value": False}
            )
            log.warning("%s was protected against termination; the protection is off", instance_id)
            self._ec2.terminate_instances(InstanceIds=[instance_id])

        return self._try(instance_id, unprotect)

    def _delete(self, resource_id: str) -> None:
        if resource_id.startswith("vol-"):
            self._ec2.delete_volume(VolumeId=resource_id)
        else:
            self._ec2.delete_network_interface(NetworkInterfaceId=resource_id)

    @staticmethod
    def _try(resource_id: str, act: Any) -> dict[str, str]:  # noqa: ANN401 - a call without arguments
        try:
            with aws_call(f"end {resource_id}"):
                act()
        except AwsError as error:
            cause = error.__cause__
            code = error_code(cause) if isinstance(cause, ClientError) else ""
            if not code.endswith(".NotFound"):
                return {resource_id: str(error)}
        return {}

    @property
    def _own(self) -> dict[str, Any]:
        return {"Name": f"tag:{TAG_ENVIRONMENT}", "Values": [self.environment]}

    def _is_ours(self, tags: Sequence[Mapping[str, str]] | None) -> bool:
        return _tag(tags, TAG_ENVIRONMENT) == self.environment

    def _instances(self, filters: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for page in self._pages("describe_instances", filters):
            found += [item for group in page["Reservations"] for item in group["Instances"]]
        return found

    def _pages(self, operation: str, filters: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        found = []
        with aws_call(f"ec2:{operation}"):
            pages = self._ec2.get_paginator(operation).paginate(  # type: ignore[call-overload]  # three operations, one shape
                Filters=filters, PaginationConfig={"PageSize": 500}
            )
            for page in pages:
                self._observe(page)
                found.append(page)
        return found

    def _observe(self, page: Mapping[str, Any]) -> None:
        date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date:
            self.now = max(self.now, parsedate_to_datetime(date).timestamp())

    def _machine(self, item: Mapping[str, Any]) -> SeenMachine:
        tags = item.get("Tags")
        lifetime = _tag(tags, TAG_MAX_LIFETIME)
        attached = _attached_at(item)
        return SeenMachine(
            instance_id=item["InstanceId"],
            state=item["State"]["Name"],
            payer=_tag(tags, TAG_PAYER),
            job=_tag(tags, TAG_JOB),
            jobkey=_tag(tags, TAG_JOBKEY),
            attempt=_tag(tags, TAG_ATTEMPT),
            age=self.now - attached.timestamp() if attached else None,
            max_lifetime=float(lifetime) if lifetime.isascii() and lifetime.isdigit() else None,
        )


def _attached_at(item: Mapping[str, Any]) -> datetime | None:
    """Return when the primary network interface was attached: a restart does not change it."""
    for interface in item.get("NetworkInterfaces", ()):
        attachment = interface.get("Attachment", {})
        if attachment.get("DeviceIndex", 0) == 0 and attachment.get("AttachTime"):
            return attachment["AttachTime"]  # type: ignore[no-any-return]  # a datetime, says botocore
    return item.get("LaunchTime")


def _tag(tags: Sequence[Mapping[str, str]] | None, key: str) -> str:
    return next((tag["Value"] for tag in tags or () if tag["Key"] == key), "")
