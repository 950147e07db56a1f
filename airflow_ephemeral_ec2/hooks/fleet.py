"""The EC2 calls that we make, and what they return as values."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from airflow_ephemeral_ec2.contract import instance_arn
from airflow_ephemeral_ec2.exceptions import ConfigurationError, RequestRefusedError, nearest
from airflow_ephemeral_ec2.hooks.aws_errors import UnreadableAnswerError, aws_call, error_code
from airflow_ephemeral_ec2.hooks.garbage import without_collections
from airflow_ephemeral_ec2.model.image import read_image
from airflow_ephemeral_ec2.model.outcome import Observation
from airflow_ephemeral_ec2.model.plan import TAG_ATTEMPT, TAG_ENVIRONMENT, TAG_JOBKEY
from airflow_ephemeral_ec2.model.spec import ImageFacts, InstanceFacts
from airflow_ephemeral_ec2.model.sweep import (
    ALIVE,
    ENDING,
    MAX_FILTER_VALUES,
    NOT_RUNNING,
    Shown,
    find_launch_minutes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from airflow_ephemeral_ec2.hooks.clients import Clients

log = logging.getLogger(__name__)
_Taken = TypeVar("_Taken")


@dataclass(frozen=True)
class ConsoleOutput:
    """The last 64 KB that a machine wrote to its console, and when EC2 took them over."""

    text: str
    posted_at: float | None
    """Seconds since 1970; None when nothing was posted."""


class Fleet:
    """The machines of one environment in one region."""

    def __init__(self, clients: Clients, environment: str, region: str) -> None:
        self.clients = clients
        self._environment = environment
        self._region = region

    def run(self, request: Mapping[str, object]) -> Observation:
        """
        Call RunInstances once.

        :raises ClientError: as botocore gives it; the launch protocol classifies it
        :raises UnreadableAnswerError: the answer shows no instance; nobody knows if there is one
        """
        try:
            answer = self.clients.launch.run_instances(**request)  # type: ignore[arg-type]  # rendered as a plain mapping
        except ResponseParserError as error:
            raise UnreadableAnswerError("RunInstances: the answer cannot be parsed") from error
        found = [item for item in answer.get("Instances", ()) if item.get("InstanceId")]
        if not found:
            raise UnreadableAnswerError("RunInstances: the answer shows no instance")
        machines = [self._observe(item, answer.get("OwnerId", "")) for item in found]
        if len(machines) > 1:
            # One was asked for. Should the wrong one have begun, the start lock says so.
            extras = [machine.instance_id for machine in machines[1:]]
            log.error("RunInstances launched %d machines for one; ending %s", len(found), extras)
            self.terminate(extras)
        return machines[0]

    def find_account(self) -> str:
        """
        Name the AWS account whose limits count; empty where STS cannot be asked.

        GetCallerIdentity needs no permission (IAM user guide); it may need a way out of the VPC.
        """
        try:
            return str(self.clients.account_id)
        except (BotoCoreError, ClientError) as error:
            log.warning("cannot ask STS for the account: %s", type(error).__name__)
            return ""

    def find_by_token(self, client_token: str) -> Observation | None:
        found = self._describe([{"Name": "client-token", "Values": [client_token]}])
        return found[0] if found else None

    def find_attempt(self, jobkey: str, attempt: int) -> list[Observation]:
        """Find all machines of an attempt; more than one only after a double launch."""
        return self._describe(
            [
                {"Name": f"tag:{TAG_JOBKEY}", "Values": [jobkey]},
                {"Name": f"tag:{TAG_ATTEMPT}", "Values": [str(attempt)]},
            ]
        )

    def find_machines(self) -> list[tuple[str, Observation]]:
        """Find all machines of this environment that EC2 shows, each with its attempt's name."""
        by_tag = {"Name": f"tag:{TAG_ENVIRONMENT}", "Values": [self._environment]}

        def take(instance: Mapping[str, Any], owner: str) -> tuple[str, Observation]:
            tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
            name = f"{tags.get(TAG_JOBKEY)}-a{tags.get(TAG_ATTEMPT)}"
            return name, self._observe(instance, owner)

        return self._describe_each([by_tag], take)

    def observe(
        self,
        instance_ids: Sequence[str],
        *,
        all_states: bool,
        launched_at: Iterable[float] = (),
        ending: Collection[str] | None = None,
    ) -> Shown:
        """
        Look at machines by id: all of them, or only those that are not running any more.

        Filters, not ids: one unknown id would fail the whole call.

        :param launched_at: when they were launched (seconds since 1970), as far as it is known;
            spares the frequent look at many machines those that are dead for long
        :param ending: a frequent look at many asks for these by id, and of all others only for
            those that are ending: it is spared all that are dead
        """
        states = _in_states(NOT_RUNNING)
        if len(instance_ids) <= MAX_FILTER_VALUES:
            return Shown(self._look_up(instance_ids, [] if all_states else [states]))
        filters: list[dict[str, Any]] = [
            {"Name": f"tag:{TAG_ENVIRONMENT}", "Values": [self._environment]}
        ]
        if all_states:
            # The dead are looked up by their ids: no others are shown.
            filters.append(_in_states(ALIVE))
        elif ending is not None:
            filters.append(_in_states(ENDING))
        else:
            minutes = find_launch_minutes(launched_at)
            recent = [{"Name": "launch-time", "Values": minutes}] if minutes else []
            filters += [states, *recent]
        return self._sweep(filters, set(instance_ids) if all_states else ending or (), instance_ids)

    def _sweep(
        self, filters: list[dict[str, Any]], needed: Collection[str], wanted: Collection[str]
    ) -> Shown:
        """Look by filters, and by id at those of ``needed`` that are not shown; they may be dead."""
        names, others = set(wanted), 0

        def take(instance: Mapping[str, Any], owner: str) -> Observation | None:
            nonlocal others
            if instance["InstanceId"] in names:
                return self._observe(instance, owner)
            others += 1
            return None

        found = self._describe_each(filters, take)
        missing = set(needed).difference(one.instance_id for one in found)
        return Shown(found + self._look_up(sorted(missing)), others)

    def _look_up(
        self, instance_ids: Sequence[str], filters: Sequence[dict[str, Any]] = ()
    ) -> list[Observation]:
        found = []
        for at in range(0, len(instance_ids), MAX_FILTER_VALUES):
            some = list(instance_ids[at : at + MAX_FILTER_VALUES])
            found += self._describe([{"Name": "instance-id", "Values": some}, *filters])
        return found

    def _describe(self, filters: list[dict[str, Any]]) -> list[Observation]:
        return self._describe_each(filters, self._observe)

    def _describe_each(
        self,
        filters: list[dict[str, Any]],
        take: Callable[[Mapping[str, Any], str], _Taken | None],
    ) -> list[_Taken]:
        """Take what is wanted of each instance, page by page: a page is large."""
        pages = self.clients.ec2.get_paginator("describe_instances").paginate(
            Filters=filters,  # type: ignore[arg-type]  # plain mappings
            PaginationConfig={"PageSize": 1000},
        )
        found: list[_Taken] = []
        with aws_call("ec2:DescribeInstances"), without_collections():
            for page in pages:
                for reservation in page["Reservations"]:
                    owner = reservation.get("OwnerId", "")
                    taken = (take(item, owner) for item in reservation["Instances"])
                    found += [one for one in taken if one is not None]
        return found

    def _observe(self, instance: Mapping[str, Any], owner: str) -> Observation:
        instance_id, launched = instance["InstanceId"], instance.get("LaunchTime")
        return Observation(
            instance_id=instance_id,
            state=instance.get("State", {}).get("Name", "pending"),
            reason_code=instance.get("StateReason", {}).get("Code", ""),
            instance_type=instance.get("InstanceType", ""),
            availability_zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
            capacity_type=instance.get("InstanceLifecycle", "on-demand"),
            arn=instance_arn(self._region, owner, instance_id, partition_of(self._region)),
            subnet=instance.get("SubnetId") or "",
            client_token=instance.get("ClientToken") or "",
            launched_at=launched.timestamp() if launched else None,
        )

    def find_impaired(self) -> frozenset[str]:
        """
        Find the machines of this account and region whose host EC2 calls impaired.

        :raises AwsError: EC2 could not be asked
        """
        impaired = {"Name": "system-status.status", "Values": ["impaired"]}
        found = set()
        with aws_call("ec2:DescribeInstanceStatus"):
            pages = self.clients.ec2.get_paginator("describe_instance_status")
            for page in pages.paginate(Filters=[impaired]):  # type: ignore[list-item]  # plain mapping
                found |= {status["InstanceId"] for status in page["InstanceStatuses"]}
        return frozenset(found)

    def read_console(self, instance_id: str, *, as_of_now: bool = False) -> ConsoleOutput:
        """
        Read a machine's console output; empty when EC2 has none.

        :param as_of_now: not what EC2 took over at the last start or end, but what it says now;
            quickly or not at all, and only of a machine on Nitro that lives
        :raises AwsError: EC2 could not be asked, or no permission, or not of this machine
        """
        client = self.clients.quick_ec2 if as_of_now else self.clients.ec2
        latest = {"Latest": True} if as_of_now else {}
        with aws_call("ec2:GetConsoleOutput"):
            try:
                answer = client.get_console_output(InstanceId=instance_id, **latest)
            except ClientError as error:
                if error_code(error) == "InvalidInstanceID.NotFound":
                    return ConsoleOutput("", None)
                raise
        posted = answer.get("Timestamp")
        return ConsoleOutput(answer.get("Output", ""), posted.timestamp() if posted else None)

    def terminate(self, instance_ids: Iterable[str], *, force: bool = False) -> None:
        """
        End machines; one that EC2 does not know yet is asked for again on the next pass.

        :param force: for a machine that does not come out of ``shutting-down``
        """
        how: dict[str, Any] = {"Force": True, "SkipOsShutdown": True} if force else {}
        for instance_id in instance_ids:
            with aws_call("ec2:TerminateInstances"):
                try:
                    self.clients.ec2.terminate_instances(InstanceIds=[instance_id], **how)
                except ClientError as error:
                    if error_code(error) == "OperationNotPermitted":
                        raise RequestRefusedError(
                            f"terminate {instance_id}",
                            "it is protected against termination, by somebody else.",
                            "The reaper takes the protection off (docs/operating.md#reaper).",
                        ) from error
                    if error_code(error) != "InvalidInstanceID.NotFound":
                        raise

    # -- facts -----------------------------------------------------------------------------

    def resolve_image(self, ami: str) -> str:
        """Turn ``ssm:/path`` into an AMI id; an id stays as it is."""
        if not ami.startswith("ssm:"):
            return ami
        name = ami.removeprefix("ssm:")
        with aws_call(f"read SSM parameter {name} for ami"):
            try:
                answer = self.clients.ssm.get_parameter(Name=name)
            except ClientError as error:
                if error_code(error) == "ParameterNotFound":
                    msg = f"ami: no such SSM parameter: {name} in {self._region}. Correct the row."
                    raise ConfigurationError(msg) from error
                raise
        return str(answer["Parameter"]["Value"])

    def image_facts(self, image_id: str) -> ImageFacts:
        """
        Look an AMI up.

        :raises ConfigurationError: EC2 does not know it in this region
        """
        images: list[Any] = []
        with aws_call("ec2:DescribeImages"):
            try:
                images += self.clients.ec2.describe_images(ImageIds=[image_id])["Images"]
            except ClientError as error:
                if not error_code(error).startswith("InvalidAMIID"):
                    raise
        if not images:
            msg = f"ami: no such image: {image_id} in {self._region}. Correct the row."
            raise ConfigurationError(msg)
        return read_image(images[0])

    def instance_facts(self, names: Sequence[str]) -> dict[str, InstanceFacts]:
        """
        Look instance types up.

        :raises ConfigurationError: EC2 does not know one of them in this region
        """
        found = {}
        with aws_call("ec2:DescribeInstanceTypes"):
            try:
                types = self.clients.ec2.describe_instance_types(InstanceTypes=list(names))  # type: ignore[arg-type]  # any name the user wrote
            except ClientError as error:
                if error_code(error).startswith("InvalidInstanceType"):
                    msg = f"instance_types: not in {self._region}: {error}. Correct the row."
                    raise ConfigurationError(msg) from error
                raise
        for item in types["InstanceTypes"]:
            architectures = item["ProcessorInfo"]["SupportedArchitectures"]
            found[str(item["InstanceType"])] = InstanceFacts(
                vcpus=item["VCpuInfo"]["DefaultVCpus"],
                memory_mib=item["MemoryInfo"]["SizeInMiB"],
                architecture="arm64" if "arm64" in architectures else "x86_64",
            )
        for name in names:
            if name not in found:
                near = nearest(name, list(found))
                msg = f"instance_types: {name!r} is not offered in {self._region}" + (
                    f"; did you mean {near!r}?" if near else "."
                )
                raise ConfigurationError(msg)
        return found


def _in_states(states: Sequence[str]) -> dict[str, Any]:
    return {"Name": "instance-state-name", "Values": list(states)}


def partition_of(region: str) -> str:
    """Name the AWS partition of a region."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"
