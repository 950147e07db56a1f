"""Faults on demand: rules that make a call fail, wait, or lose its answer."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from airflow_ephemeral_ec2.local.distortions import DISTORTIONS
from airflow_ephemeral_ec2.local.fault_values import check_values

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

_AROUND = ("delay", "shifts_date", "hides_every", "fades_tags")
"""What a rule may do around a call that is answered all the same."""


@dataclass(frozen=True)
class Fault:
    """
    One rule.

    ``action`` is like ``RunInstances``, ``s3:PutObject`` or ``ec2:Describe*``; ``match`` has
    regular expressions for request parameters (S3: ``Bucket``, ``Key``, ``method``). ``count`` is
    how often it happens (0: always). ``delay`` is in seconds. ``after`` answers with the error
    after having executed the call; ``drop`` closes the connection instead of answering. ``twice``
    executes the call twice, as a proxy that asks again; ``extra`` launches so many machines more
    than asked. ``distortion`` breaks the answer (``distortions.py``). ``shifts_date`` moves the
    clock of the answer by so many seconds; with ``refuses_skew`` a request is refused that was
    signed at too different a time. ``hides_every`` hides all instances for so many seconds, shows
    them for as many, and so on. ``fades_tags`` takes the tags of an instance away so many seconds
    after its end (None: never). ``by`` is a regular expression for the ARN of who calls. The rule
    holds from ``start_after`` seconds on, for ``lasts`` seconds (0: for good). Without any of these
    only the delay happens.
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
    extra: int = 0
    distortion: str = ""
    shifts_date: float = 0.0
    refuses_skew: bool = False
    hides_every: float = 0.0
    fades_tags: float | None = None
    by: str = ""
    start_after: float = 0.0
    lasts: float = 0.0

    @property
    def breaks(self) -> bool:
        """Whether the call itself goes wrong, and not only what is around it."""
        return bool(self.code or self.drop or self.twice or self.extra or self.distortion)

    @property
    def around(self) -> tuple[str, ...]:
        """What it does around a call, by the names of the fields."""
        return tuple(name for name in _AROUND if getattr(self, name) not in (0, None))

    def hits(self, service: str, action: str, parameters: Mapping[str, str]) -> bool:
        names = (action, f"{service}:{action}")
        if not any(fnmatchcase(name, self.action) for name in names):
            return False
        if self.by and not re.search(self.by, parameters.get("by", "")):
            return False
        return all(
            re.search(pattern, parameters.get(name, "")) for name, pattern in self.match.items()
        )

    def at_age(self, age: float) -> "Fault":
        """Return what it is so many seconds after it began: hiding goes on and off."""
        is_shown = self.hides_every and int((age - self.start_after) // self.hides_every) % 2
        return replace(self, hides_every=0.0) if is_shown else self


def parse_fault(body: object) -> Fault:
    """
    Read a rule as it was posted.

    :raises ValueError: not a rule; says what is wrong and what is allowed.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("action"), str):
        msg = 'a fault is a JSON object with at least "action", like {"action": "RunInstances"}'
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for all of the user's mistakes
    known = sorted(one.name for one in fields(Fault))
    unknown = sorted(str(name) for name in set(body) - set(known))
    if unknown:
        near = get_close_matches(unknown[0], [*known, "kind", "how"], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"unknown: {', '.join(unknown)};{hint} allowed: {', '.join(known)}"
        raise ValueError(msg)
    check_values(body)
    if body.get("distortion", "") not in ("", *DISTORTIONS):
        msg = f"distortion {body['distortion']!r} is not known; allowed: {', '.join(DISTORTIONS)}"
        raise ValueError(msg)
    return Fault(**body)


def combine(faults: list[Fault]) -> Fault | None:
    """Make one fault of all that hit a call: what breaks it, if anything does, and the rest."""
    if not faults:
        return None
    main = next((one for one in faults if one.breaks), faults[0])
    fading = [one.fades_tags for one in faults if one.fades_tags is not None]
    return replace(
        main,
        delay=sum(one.delay for one in faults),
        shifts_date=sum(one.shifts_date for one in faults),
        refuses_skew=any(one.refuses_skew for one in faults),
        hides_every=max(one.hides_every for one in faults),
        fades_tags=min(fading) if fading else None,
    )


@dataclass(frozen=True)
class _Rule:
    fault: Fault
    since: float


class FaultBook:
    """The rules in force, oldest first."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rules: list[_Rule] = []
        self._monotonic = monotonic
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._rules.append(_Rule(fault, self._monotonic()))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def listed(self) -> list[dict[str, object]]:
        with self._lock:
            return [asdict(rule.fault) for rule in self._rules]

    def take(
        self,
        service: str,
        action: str,
        parameters: Mapping[str, str],
        applies: Callable[[Fault], bool] = lambda _: True,
    ) -> Fault | None:
        """
        Find what hits a call, and count it; the last time removes a rule.

        Of the rules that break a call the oldest hits, and beside it the oldest of each sort that
        only happens around it.

        :param applies: asked about a rule that would break the call
        """
        with self._lock:
            now = self._monotonic()
            taken: list[_Rule] = []
            found: list[Fault] = []
            seen: set[str] = set()
            for rule in self._rules:
                fault = _in_force(rule, now)
                if fault is None or not fault.hits(service, action, parameters):
                    continue
                aspects = {"breaks"} if fault.breaks else set(fault.around)
                if not aspects or seen & aspects or (fault.breaks and not applies(fault)):
                    continue
                seen |= aspects
                taken.append(rule)
                found.append(fault)
            for rule in taken:
                self._count(rule)
            return combine(found)

    def _count(self, rule: _Rule) -> None:
        index = self._rules.index(rule)
        if rule.fault.count == 1:
            del self._rules[index]
        elif rule.fault.count > 1:
            left = replace(rule.fault, count=rule.fault.count - 1)
            self._rules[index] = replace(rule, fault=left)


def _in_force(rule: _Rule, now: float) -> Fault | None:
    fault, age = rule.fault, now - rule.since
    if age < fault.start_after or (fault.lasts and age >= fault.start_after + fault.lasts):
        return None
    return fault.at_age(age)
