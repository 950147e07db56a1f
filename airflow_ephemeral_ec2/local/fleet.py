"""All machines of the local cloud: launched, ended, shown by EC2, written to the API log."""

import threading
import time
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

from airflow_ephemeral_ec2.local.api_log import ApiLog
from airflow_ephemeral_ec2.local.clock import Clock
from airflow_ephemeral_ec2.local.imds import Metadata, MetadataService
from airflow_ephemeral_ec2.local.instance_states import NO_REASON, Event, Reason, State
from airflow_ephemeral_ec2.local.local_instance import LocalInstance
from airflow_ephemeral_ec2.local.machine import Delays, Machine, MachinePlan, Surroundings
from airflow_ephemeral_ec2.local.runner import Guest, Runner
from airflow_ephemeral_ec2.local.sessions import SessionBook
from airflow_ephemeral_ec2.local.user_data_parts import read_user_data

MAX_LIFETIME_TAG = "ephemeral-ec2:max-lifetime-seconds"
_GIB = 1024**3
_SPOT_NOTICE = timedelta(minutes=2)


@dataclass
class Member:
    """One instance: as EC2 shows it, as it runs, as its metadata service tells it."""

    instance: LocalInstance
    machine: Machine
    metadata: Metadata
    ended_at: float | None = None


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
    _imds: MetadataService = field(default_factory=MetadataService)

    def __post_init__(self) -> None:
        self._around = Surroundings(Clock(), self.delays, self.runner, self.lock, self._changed)

    def launch(self, instance: LocalInstance) -> None:
        """Switch an instance on that moto has just made."""
        user_data = b64decode(str(instance.user_data)) if instance.user_data else b""
        metadata = self._describe(instance, user_data)
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        volumes = [volume for _, volume in instance.get_block_device_mapping]
        size = max((int(volume.size or 8) for volume in volumes), default=8) * _GIB
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
        self.members[instance.id] = Member(instance, machine, metadata)
        self._write_state(instance, State.PENDING, NO_REASON)
        machine.switch_on()

    def kill(self, instance_id: str, how: str, code: str = "", message: str = "") -> None:
        """
        Harm one instance on demand.

        :raises KeyError: no such instance.
        :raises ValueError: no such harm.
        """
        member = self.members[instance_id]
        reason = Reason(code, message or code) if code else None
        events = {
            "host": Event.HOST_DEATH,
            "spot": Event.SPOT_RECLAIM,
            "launch": Event.LAUNCH_FAILURE,
            "power-off": Event.WATCHDOG,
        }
        if how == "spot-notice":
            member.metadata.spot_action_at = datetime.now(UTC) + _SPOT_NOTICE
        elif how == "agent":
            member.machine.kill_agent()
        elif how in events:
            member.machine.happen(events[how], reason)
        else:
            known = ", ".join([*events, "spot-notice", "agent"])
            msg = f"how: {how!r} is not known; allowed: {known}"
            raise ValueError(msg)

    def evict(self) -> None:
        """Forget instances that were terminated long enough ago; called under the lock."""
        now = time.monotonic()
        for instance_id, member in list(self.members.items()):
            if member.ended_at is not None and now - member.ended_at >= self.visible:
                backend = member.instance.ec2_backend
                for key, reservation in list(backend.reservations.items()):
                    if any(one.id == instance_id for one in reservation.instances):
                        del backend.reservations[key]
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
