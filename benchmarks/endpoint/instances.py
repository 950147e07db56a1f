"""The instances: launched by token, found by filter, dying in steps."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from benchmarks.endpoint.instance_xml import render_instance, render_reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

BY_ITSELF = (
    "Client.InstanceInitiatedShutdown",
    "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
)
BY_API = (
    "Client.UserInitiatedShutdown",
    "Client.UserInitiatedShutdown: User initiated shutdown",
)


@dataclass(slots=True)
class Instance:
    """One instance; its XML is rendered once per state."""

    instance_id: str
    instance_type: str
    subnet: str
    token: str
    tags: dict[str, str]
    state: str = "running"
    reason: tuple[str, str] | None = None
    launched: str = field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    )
    xml: bytes = b""

    @property
    def item(self) -> bytes:
        if not self.xml:
            self.xml = render_instance(
                instance_id=self.instance_id,
                state=self.state,
                reason=self.reason,
                instance_type=self.instance_type,
                subnet=self.subnet,
                launched=self.launched,
                token=self.token,
                tags=self.tags,
            )
        return self.xml

    @property
    def reservation(self) -> bytes:
        return render_reservation(self.instance_id, self.item)


class UnknownFilterError(Exception):
    """A filter that this endpoint does not know: it must not be taken for one that matches."""


class Instances:
    """
    All instances of one account and region.

    :param call_later: ``(seconds, function)``; runs the steps of a death or a start
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        *,
        shutting_down_seconds: float = 5.0,
        pending_seconds: float = 5.0,
    ) -> None:
        self.by_id: dict[str, Instance] = {}
        self.by_token: dict[str, Instance] = {}
        self.terminated_at: dict[str, float] = {}
        """Instance -> ``time.monotonic()`` of its death."""
        self._by_state: dict[str, dict[str, Instance]] = {}
        self._call_later = call_later
        self._shutting_down_seconds = shutting_down_seconds
        self._pending_seconds = pending_seconds

    def add(self, instance: Instance) -> None:
        self.by_id[instance.instance_id] = instance
        self._by_state.setdefault(instance.state, {})[instance.instance_id] = instance
        if instance.token:
            self.by_token[instance.token] = instance

    def launch(self, instance_type: str, subnet: str, token: str, tags: dict[str, str]) -> Instance:
        """Launch an instance, or return the one that this client token has launched already."""
        if token in self.by_token:
            return self.by_token[token]
        instance_id = "i-" + secrets.token_hex(9)[:17]
        instance = Instance(instance_id, instance_type, subnet, token, tags, state="pending")
        self.add(instance)
        self._call_later(self._pending_seconds, lambda: self._start(instance))
        return instance

    def _start(self, instance: Instance) -> None:
        if instance.state == "pending":
            self._move(instance, "running")

    def die(self, instance_id: str, reason: tuple[str, str] = BY_ITSELF) -> None:
        """Let an instance end: ``shutting-down``, then ``terminated``."""
        instance = self.by_id[instance_id]
        if instance.state in ("shutting-down", "terminated"):
            return
        self._move(instance, "shutting-down", reason)
        self._call_later(self._shutting_down_seconds, lambda: self._end(instance))

    def _end(self, instance: Instance) -> None:
        self._move(instance, "terminated", instance.reason)
        self.terminated_at[instance.instance_id] = time.monotonic()

    def _move(self, instance: Instance, state: str, reason: tuple[str, str] | None = None) -> None:
        del self._by_state[instance.state][instance.instance_id]
        instance.state, instance.reason, instance.xml = state, reason, b""
        self._by_state.setdefault(state, {})[instance.instance_id] = instance

    # -- filters ---------------------------------------------------------------------------

    def find(self, filters: Mapping[str, list[str]]) -> list[Instance]:
        """
        Find the instances that match all filters; values may hold ``*`` and ``?``.

        :raises UnknownFilterError: a filter that is not known here
        """
        found = self._candidates(filters)
        for name, values in filters.items():
            read = _reader(name)
            if any("*" in value or "?" in value for value in values):
                found = [i for i in found if _matches(read(i), values)]
            else:
                wanted = set(values)
                found = [i for i in found if read(i) in wanted]
        return list(found)

    def _candidates(self, filters: Mapping[str, list[str]]) -> Iterable[Instance]:
        """Start from the smallest index, so that a narrow question is a cheap one."""
        if "instance-id" in filters:
            return [self.by_id[i] for i in filters["instance-id"] if i in self.by_id]
        if "client-token" in filters:
            return [self.by_token[t] for t in filters["client-token"] if t in self.by_token]
        if "instance-state-name" in filters:
            states = (self._by_state.get(name, {}) for name in filters["instance-state-name"])
            return [instance for found in states for instance in found.values()]
        return self.by_id.values()


def _reader(name: str) -> Callable[[Instance], str | None]:
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda instance: instance.tags.get(key)
    fields: dict[str, Callable[[Instance], str | None]] = {
        "instance-id": lambda instance: instance.instance_id,
        "instance-state-name": lambda instance: instance.state,
        "launch-time": lambda instance: instance.launched,
        "instance-type": lambda instance: instance.instance_type,
        "client-token": lambda instance: instance.token,
        "subnet-id": lambda instance: instance.subnet,
    }
    if name not in fields:
        raise UnknownFilterError(name)
    return fields[name]


def _matches(value: str | None, patterns: list[str]) -> bool:
    return value is not None and any(fnmatchcase(value, pattern) for pattern in patterns)
