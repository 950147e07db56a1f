"""All machines of the local cloud: launched, ended, shown by EC2, written to the API log."""

import math
import threading
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

from airflow_ephemeral_ec2.local.api_log import ApiLog
from airflow_ephemeral_ec2.local.clock import Clock
from airflow_ephemeral_ec2.local.harm_effects import Member, befall, forget_record
from airflow_ephemeral_ec2.local.harms import AT_LAUNCH, Harm, HarmBook
from airflow_ephemeral_ec2.local.imds import Metadata, MetadataService
from airflow_ephemeral_ec2.local.instance_states import NO_REASON, Reason, State
from airflow_ephemeral_ec2.local.local_instance import LocalInstance
from airflow_ephemeral_ec2.local.machine import Delays, Machine, MachinePlan, Surroundings
from airflow_ephemeral_ec2.local.runner import Guest, Runner
from airflow_ephemeral_ec2.local.sessions import SessionBook
from airflow_ephemeral_ec2.local.user_data_parts import read_user_data

MAX_LIFETIME_TAG = "ephemeral-ec2:max-lifetime-seconds"
_GIB = 1024**3


@dataclass
class Fleet:
    """``visible`` is how long a terminated instance stays visible, in seconds."""

    log: ApiLog
    runner: Runner
    sessions: SessionBook
    delays: Delays
    visible: float
    api_url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Guards moto's EC2; held by every EC2 call and every change of a state."""
    members: dict[str, Member] = field(default_factory=dict)
    harms: HarmBook = field(default_factory=HarmBook)
    _imds: MetadataService = field(default_factory=MetadataService)
    _on_running: dict[str, list[Harm]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._around = Surroundings(Clock(), self.delays, self.runner, self.lock, self._changed)

    def launch(self, instance: LocalInstance) -> None:
        """Switch an instance on that moto has just made."""
        user_data = b64decode(str(instance.user_data)) if instance.user_data else b""
        metadata = self._describe(instance, user_data)
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        volumes = dict(instance.get_block_device_mapping)
        root = volumes.get(instance.root_device_name) or next(iter(volumes.values()), None)
        size = int((root and root.size) or 8) * _GIB
        guest = Guest(
            instance_id=instance.id,
            user_data=user_data,
            imds_url=self._imds.open(metadata),
            api_url=self.api_url,
            region=instance.region_name,
            volume_bytes=size,
            tags=tags,
        )
        behavior = instance.instance_initiated_shutdown_behavior
        plan = MachinePlan(guest, behavior, _max_lifetime(tags, user_data))
        machine = Machine(plan, self._around)
        member = self.members[instance.id] = Member(instance, machine, metadata)
        instance.condition = metadata.condition
        facts = {f"tag:{name}": value for name, value in tags.items()}
        market = "spot" if instance.lifecycle == "spot" else "on-demand"
        facts |= {"instance_type": instance.instance_type, "zone": metadata.zone, "market": market}
        self._harm_new(member, facts)
        self._write_state(instance, State.PENDING, NO_REASON)
        machine.switch_on()

    def harm(self, instance_id: str, harm: Harm) -> None:
        """
        Harm one instance on demand.

        :raises KeyError: no such instance.
        """
        member = self.members[instance_id]
        if harm.after:
            now = replace(harm, after=0.0)
            self._around.clock.after(harm.after, lambda: self._harm_later(instance_id, now))
        else:
            befall(member, harm)

    def _harm_later(self, instance_id: str, harm: Harm) -> None:
        with self.lock:
            if instance_id in self.members:
                befall(self.members[instance_id], harm)

    def _harm_new(self, member: Member, facts: Mapping[str, str]) -> None:
        """Let befall a new instance what waits for one like it."""
        instance_id = member.instance.id
        for harm in self.harms.take(facts):
            if harm.how in AT_LAUNCH:
                self.harm(instance_id, harm)
            else:
                self._on_running.setdefault(instance_id, []).append(harm)

    def is_shown(self, instance_id: str) -> bool:
        """Say whether EC2 shows an instance just now."""
        member = self.members.get(instance_id)
        return member is None or time.monotonic() >= member.metadata.condition.hidden_until

    def is_cut_off(self, instance_arn: str) -> bool:
        """Say whether an instance cannot reach AWS just now."""
        member = self.members.get(instance_arn.rpartition("/")[2])
        return member is not None and time.monotonic() < member.metadata.condition.cut_off_until

    def is_impaired(self, instance_id: str) -> bool:
        """Say whether EC2 calls the host of an instance impaired."""
        member = self.members.get(instance_id)
        return member is not None and time.monotonic() < member.metadata.condition.impaired_until

    def console(
        self, instance_id: str, *, is_latest: bool = False
    ) -> tuple[bytes, datetime | None]:
        """
        Return the console output as EC2 has it, and when it was posted.

        :param is_latest: of a machine that lives: as it is now, posted or not
        """
        member = self.members[instance_id]
        ill = member.metadata.condition
        if ill.has_no_console:
            return b"", None
        is_as_of_now = is_latest and member.machine.state is State.RUNNING
        if ill.console_delay and not is_as_of_now:
            posted = (member.ended_at or math.inf) + ill.console_delay
            if time.monotonic() < posted:
                return b"", None
        return member.machine.console(), datetime.now(UTC)

    def evict(self) -> None:
        """Forget instances that were terminated long enough ago; called under the lock."""
        now = time.monotonic()
        for instance_id, member in list(self.members.items()):
            if member.ended_at is not None and now - member.ended_at >= self.visible:
                forget_record(member)
                del self.members[instance_id]

    def living(self) -> list[str]:
        """List the instances that are not terminated."""
        with self.lock:
            members = self.members.items()
            return [one for one, m in members if m.machine.state is not State.TERMINATED]

    def close(self) -> None:
        """End every machine at once and wait for it."""
        self.runner.close()

    def _changed(self, instance_id: str, state: State, reason: Reason) -> None:
        member = self.members[instance_id]
        if state is State.TERMINATED:
            self._imds.close(instance_id)
            self.sessions.forget_instance(member.metadata.instance_arn)
            member.ended_at = time.monotonic()
        member.instance.show(state, reason)
        self._write_state(member.instance, state, reason)
        if state is State.RUNNING:
            for harm in self._on_running.pop(instance_id, ()):
                # Not now: the event that brought it here is still being dealt with.
                self._around.clock.after(
                    harm.after, partial(self._harm_later, instance_id, replace(harm, after=0.0))
                )

    def _write_state(self, instance: LocalInstance, state: State, reason: Reason) -> None:
        self.log.write(
            event="state",
            instance_id=instance.id,
            state=str(state),
            reason=reason.code,
            instance_type=instance.instance_type,
            client_token=instance.client_token,
            spot=instance.lifecycle == "spot",
            zone=instance.placement.zone,
            tags={tag["key"]: tag["value"] for tag in instance.get_tags()},
        )

    def _describe(self, instance: LocalInstance, user_data: bytes) -> Metadata:
        account = instance.owner_id
        profile = instance.profile_arn
        return Metadata(
            instance_id=instance.id,
            instance_arn=f"arn:aws:ec2:{instance.region_name}:{account}:instance/{instance.id}",
            instance_type=instance.instance_type,
            image_id=instance.image_id,
            region=instance.region_name,
            zone=str(instance.placement.zone),
            account=account,
            private_ip=instance.private_ip or "",
            architecture=instance.architecture,
            launched_at=instance.launch_time.replace(tzinfo=UTC),
            user_data=user_data,
            role_arn=_role_of(profile, account),
            profile_arn=profile,
            is_spot=instance.lifecycle == "spot",
            enabled=instance.metadata_options.http_endpoint != "disabled",
            sessions=self.sessions,
        )


def find_backend(account: str, region: str) -> Any:  # noqa: ANN401 - moto is not typed
    return ec2_backends[account][region]


def _role_of(profile_arn: str, account: str) -> str:
    for profile in iam_backends[account]["aws"].get_instance_profiles() if profile_arn else ():
        if profile.arn == profile_arn and profile.roles:
            return str(profile.roles[0].arn)
    return ""


def _max_lifetime(tags: dict[str, str], user_data: bytes) -> float | None:
    """Emulate the boothook, which is never executed: only with one is there a watchdog."""
    try:
        has_boothook = read_user_data(user_data).has_boothook
    except ValueError:
        return None
    seconds = tags.get(MAX_LIFETIME_TAG, "")
    return float(seconds) if seconds.isdigit() and has_boothook else None
