"""How each harm befalls an instance; called under the fleet's lock."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_ephemeral_ec2.local.harms import Harm
from airflow_ephemeral_ec2.local.imds import Metadata
from airflow_ephemeral_ec2.local.instance_states import Event, Reason
from airflow_ephemeral_ec2.local.local_instance import LocalInstance
from airflow_ephemeral_ec2.local.machine import Machine

_SPOT_NOTICE = timedelta(minutes=2)


@dataclass
class Member:
    """One instance: as EC2 shows it, as it runs, as its metadata service tells it."""

    instance: LocalInstance
    machine: Machine
    metadata: Metadata
    ended_at: float | None = None


_EVENTS = {
    "host": Event.HOST_DEATH,
    "spot": Event.SPOT_RECLAIM,
    "launch": Event.LAUNCH_FAILURE,
    "power-off": Event.WATCHDOG,
    "stop": Event.STOP,
    "reboot": Event.REBOOT,
}
_SPELLS = {
    "impaired": "impaired_until",
    "network": "cut_off_until",
    "imds": "imds_down_until",
    "imds-401": "imds_refuses_until",
    "no-credentials": "no_credentials_until",
    "hide": "hidden_until",
    "untag": "untagged_until",
}


def befall(member: Member, harm: Harm) -> None:
    """Do to one instance what a harm says."""
    if harm.how in _EVENTS:
        reason = Reason(harm.code, harm.message or harm.code) if harm.code else None
        member.machine.happen(_EVENTS[harm.how], reason)
    elif harm.how in _SPELLS:
        until = time.monotonic() + (harm.seconds or math.inf)
        setattr(member.metadata.condition, _SPELLS[harm.how], until)
    else:
        _OTHERS[harm.how](member, harm)


def forget_record(member: Member) -> None:
    """Take EC2's record of an instance away; the machine itself goes on."""
    reservations = member.instance.ec2_backend.reservations
    for key, reservation in list(reservations.items()):
        if any(one.id == member.instance.id for one in reservation.instances):
            del reservations[key]


def _vanish(member: Member, _: Harm) -> None:
    member.metadata.condition.hidden_until = math.inf


def _give_notice(member: Member, _: Harm) -> None:
    member.metadata.spot_action_at = datetime.now(UTC) + _SPOT_NOTICE


def _delay_boot(member: Member, harm: Harm) -> None:
    member.machine.boot_delay = harm.seconds if harm.how == "slow-boot" else math.inf


def _ignore_user_data(member: Member, _: Harm) -> None:
    member.machine.ignores_user_data = True


def _get_stuck(member: Member, _: Harm) -> None:
    member.machine.is_stuck = True


def _slow_imds(member: Member, harm: Harm) -> None:
    member.metadata.condition.imds_delay = harm.seconds


def _lose_console(member: Member, _: Harm) -> None:
    member.metadata.condition.has_no_console = True


def _delay_console(member: Member, harm: Harm) -> None:
    member.metadata.condition.console_delay = harm.seconds


def _protect(member: Member, _: Harm) -> None:
    member.instance.disable_api_termination = True


def _grow_old(member: Member, harm: Harm) -> None:
    by = timedelta(seconds=harm.seconds)
    member.instance.launch_time -= by
    for interface in member.instance.nics.values():
        if interface.attach_time:
            interface.attach_time -= by


_OTHERS: Mapping[str, Callable[[Member, Harm], None]] = {
    "spot-notice": _give_notice,
    "agent": lambda member, _: member.machine.kill_agent(),
    "hang": lambda member, _: member.machine.freeze(still=True),
    "resume": lambda member, _: member.machine.freeze(still=False),
    "slow-boot": _delay_boot,
    "stuck-pending": _delay_boot,
    "no-user-data": _ignore_user_data,
    "stuck": _get_stuck,
    "imds-slow": _slow_imds,
    "no-console": _lose_console,
    "late-console": _delay_console,
    "protect": _protect,
    "vanish": _vanish,
    "age": _grow_old,
}
