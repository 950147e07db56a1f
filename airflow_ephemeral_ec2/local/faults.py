"""Faults on demand: rules that make a call fail, wait, or lose its answer."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace

from airflow_ephemeral_ec2.local.distortions import DISTORTIONS

CAPACITY_CODES = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientVolumeCapacity",
        "InsufficientFreeAddressesInSubnet",
        "Unsupported",
        "SpotMaxPriceTooLow",
        "MaxSpotInstanceCountExceeded",
        "VcpuLimitExceeded",
        "InstanceLimitExceeded",
    }
)
"""Refusals of a launch: they bind a client token and never hit a replay that has its instance."""


@dataclass(frozen=True)
class Fault:
    """
    One rule.

    ``action`` is like ``RunInstances`` or ``s3:PutObject``; ``match`` has regular expressions
    for request parameters (S3: ``Bucket``, ``Key``, ``method``). ``count`` is how often it
    happens (0: always). ``delay`` is in seconds. ``after`` answers with the error after having
    executed the call; ``drop`` closes the connection instead of answering. ``twice`` executes the
    call twice, as a proxy that asks again. ``distortion`` breaks the answer (``distortions.py``);
    ``shifts_date`` moves its Date header by so many seconds. ``by`` is a regular expression for
    the ARN of who calls. The rule holds from ``start_after`` seconds on, for ``lasts`` seconds (0:
    for good). Without any of these only the delay happens.
    """

    action: str
    match: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    http: int = 500
    message: str = "Injected by the local EC2."
    count: int = 1
    delay: float = 0.0
    after: bool = False
    drop: bool = False
    twice: bool = False
    distortion: str = ""
    shifts_date: float = 0.0
    by: str = ""
    start_after: float = 0.0
    lasts: float = 0.0

    def hits(self, service: str, action: str, parameters: Mapping[str, str]) -> bool:
        if self.action not in {action, f"{service}:{action}", f"{service}:*", "*"}:
            return False
        if self.by and not re.search(self.by, parameters.get("by", "")):
            return False
        return all(
            re.search(pattern, parameters.get(name, "")) for name, pattern in self.match.items()
        )


def parse_fault(body: object) -> Fault:
    """
    Read a rule as it was posted.

    :raises ValueError: not a rule; says what is wrong and what is allowed.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("action"), str):
        msg = 'a fault is a JSON object with at least "action", like {"action": "RunInstances"}'
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for all of the user's mistakes
    known = {one.name for one in fields(Fault)}
    unknown = sorted(set(body) - known)
    if unknown:
        msg = f"unknown: {', '.join(unknown)}; allowed: {', '.join(sorted(known))}"
        raise ValueError(msg)
    for pattern in dict(body.get("match", {})).values():
        try:
            re.compile(pattern)
        except re.error as error:
            msg = f"match {pattern!r} is not a regular expression: {error}"
            raise ValueError(msg) from error
    if body.get("distortion", "") not in ("", *DISTORTIONS):
        msg = f"distortion {body['distortion']!r} is not known; allowed: {', '.join(DISTORTIONS)}"
        raise ValueError(msg)
    return Fault(**body)


class FaultBook:
    """The rules in force, oldest first."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rules: list[Fault] = []
        self._monotonic = monotonic
        self._since: dict[int, float] = {}
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._rules.append(fault)
            self._since[id(fault)] = self._monotonic()

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def listed(self) -> list[dict[str, object]]:
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def peek(self, service: str, action: str, parameters: Mapping[str, str]) -> Fault | None:
        """Find the first rule that hits."""
        with self._lock:
            hits = (
                one
                for one in self._rules
                if self._is_on(one) and one.hits(service, action, parameters)
            )
            return next(hits, None)

    def _is_on(self, rule: Fault) -> bool:
        age = self._monotonic() - self._since.get(id(rule), 0.0)
        return age >= rule.start_after and (not rule.lasts or age < rule.start_after + rule.lasts)

    def use(self, fault: Fault) -> None:
        """Count a rule that has just hit; the last time removes it."""
        with self._lock:
            for index, rule in enumerate(self._rules):
                if rule is fault:
                    self._count(index, rule)
                    return

    def _count(self, index: int, rule: Fault) -> None:
        if rule.count == 1:
            del self._rules[index]
        elif rule.count > 1:
            left = self._rules[index] = replace(rule, count=rule.count - 1)
            self._since[id(left)] = self._since.pop(id(rule), 0.0)
