"""moto's instance, with states that take time and fields that vanish at the end."""

import time
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.models.instances import Instance, StateReason

from airflow_ephemeral_ec2.local.harms import Condition
from airflow_ephemeral_ec2.local.instance_states import STATE_CODES, Reason, State


class LocalInstance(Instance):
    """Replaces moto's instance; starts ``pending`` and obeys its machine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as moto has it
        self.nics: dict[int, Any] = {}
        self.condition = Condition()
        super().__init__(*args, **kwargs)
        self.show(State.PENDING, Reason())

    @property
    def lives(self) -> bool:
        return self._state.name not in {State.SHUTTING_DOWN, State.TERMINATED}

    def show(self, state: State, reason: Reason) -> None:
        """Take over what the machine says; a terminated instance loses network and profile."""
        if state is State.TERMINATED:
            super().terminate()
            self._subnet_id = None
            self.nics.clear()
            self.security_groups = []
            self.iam_instance_profile = None
        self._state.name, self._state.code = str(state), STATE_CODES[state]
        message = f"{reason.code}: {reason.message}" if reason.code else ""
        self.state_reason = StateReason(message, reason.code)
        stamp = utcnow().strftime("%Y-%m-%d %H:%M:%S GMT")
        self._reason = f"User initiated ({stamp})" if reason.by_user else ""

    def get_tags(self) -> list[dict[str, str]]:
        """Return the tags as EC2 shows them just now: they come late and fade."""
        if time.monotonic() < self.condition.untagged_until:
            return []
        # moto's own way looks through the tags of all resources, for each instance of an answer.
        own = self.ec2_backend.tags.get(self.id, {})
        about = {"resource_id": self.id, "resource_type": "instance"}
        return [{**about, "key": key, "value": value} for key, value in own.items()]

    @property
    def profile_arn(self) -> str:
        return str((self.iam_instance_profile or {}).get("Arn", ""))

    @property
    def private_ip(self) -> str | None:
        return super().private_ip if self.nics else None

    @property
    def private_ip_address(self) -> str | None:
        return self.private_ip

    @property
    def private_dns_name(self) -> str:
        return str(super().private_dns_name) if self.nics else ""

    @property
    def public_ip(self) -> str | None:
        return super().public_ip if self.nics else None

    @property
    def public_ip_address(self) -> str | None:
        return self.public_ip

    @property
    def vpc_id(self) -> str | None:
        return super().vpc_id if self.nics else None

    @property
    def subnet_id(self) -> str | None:
        return super().subnet_id if self.nics or self._subnet_id else None
