"""The cut between an instance's state machine and whatever runs its guest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from airflow_ephemeral_ec2.local.instance_states import Event


@dataclass(frozen=True)
class Guest:
    """Everything a runner needs to know about one instance."""

    instance_id: str
    user_data: bytes
    imds_url: str
    """Where this instance's own metadata service listens."""
    api_url: str
    region: str
    volume_bytes: int
    tags: Mapping[str, str] = field(default_factory=dict)


Report = Callable[[Event], None]
"""Called from any thread with ``POWER_OFF`` or ``GONE``."""


class RunningGuest(Protocol):
    """A guest that was started. ``GONE`` is reported when no process and no folder is left."""

    @property
    def ended(self) -> bool:
        """True from just before ``GONE`` is reported."""

    def stop(self, grace: float) -> None:
        """Press the power button: ask the guest to end, kill it after ``grace`` seconds."""

    def kill(self) -> None:
        """Take the power away."""

    def kill_agent(self) -> None:
        """Kill only the first process of the guest; the machine goes on, as on EC2."""

    def freeze(self, *, still: bool) -> None:
        """Let every process stand still, or go on."""

    def console(self) -> bytes:
        """Return the last 64 KB that the guest printed."""


class Runner(Protocol):
    """Starts guests. Implementations: processes here; later namespaces with real cloud-init."""

    def start(self, guest: Guest, report: Report) -> RunningGuest:
        """
        Run the guest's user data; returns at once.

        :raises ValueError: user data that cannot be read.
        """

    def close(self) -> None:
        """End every guest and leave nothing behind."""
