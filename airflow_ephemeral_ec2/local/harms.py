"""What can befall one instance, at once or as soon as one like it is launched: values only."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches

HOWS: Mapping[str, str] = {
    "host": "its host dies: Server.InternalError at once, or another code",
    "spot": "EC2 takes the spot machine back, without notice",
    "spot-notice": "two minutes' notice in the metadata service; nothing else",
    "launch": "the launch fails after it was accepted; code and message as given",
    "power-off": "the power goes off from inside, without the agent",
    "agent": "only the first process dies; the machine stays running",
    "stop": "stopped, by an operator or by EC2 (code Server.ScheduledStop)",
    "reboot": "rebooted: user data does not run again",
    "hang": "all processes stand still; the machine stays running",
    "resume": "the processes go on",
    "slow-boot": "running only after so many seconds more",
    "no-user-data": "running, and user data is never run (no cloud-init)",
    "stuck-pending": "never gets past pending",
    "stuck": "never comes out of shutting-down, unless terminated by force",
    "impaired": "EC2 calls its host impaired, for so many seconds (0: for good)",
    "network": "cannot reach AWS's API for so many seconds (0: for good)",
    "imds": "the metadata service is down for so many seconds (0: for good)",
    "imds-401": "the metadata service gives out no token, for so many seconds",
    "imds-slow": "the metadata service answers so many seconds late",
    "no-credentials": "role credentials are missing for so many seconds (0: for good)",
    "hide": "EC2 does not show it for so many seconds (0: for good)",
    "vanish": "EC2's record of it is gone",
    "untag": "its tags are not shown for so many seconds (0: for good)",
    "protect": "termination protection is switched on",
    "age": "looks so many seconds older",
    "no-console": "its console output is never posted",
    "late-console": "its console output is posted so many seconds after its end; before, only `Latest` shows it",
}
"""How -> what it does."""
AT_LAUNCH = frozenset(
    {"slow-boot", "no-user-data", "stuck-pending", "hide", "untag", "network", "imds", "imds-401",
     "imds-slow", "no-credentials", "protect", "no-console", "late-console", "stuck", "age"}
)  # fmt: skip
"""These take hold in the moment of the launch; the others once the machine runs."""


@dataclass(frozen=True)
class Harm:
    """
    One harm; with ``match`` for the next instances that are launched like that.

    ``match`` has regular expressions: ``instance_type``, ``zone``, ``market`` (``spot`` or
    ``on-demand``) or ``tag:NAME``. ``count`` is how many instances it befalls (0: all).
    ``after`` is in seconds, from running (or from the launch where it takes hold there).
    """

    how: str
    seconds: float = 0.0
    code: str = ""
    message: str = ""
    match: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    after: float = 0.0

    def hits(self, facts: Mapping[str, str]) -> bool:
        return all(re.search(pattern, facts.get(name, "")) for name, pattern in self.match.items())


def parse_harm(body: Mapping[str, object]) -> Harm:
    """
    Read a harm as it was posted.

    :raises ValueError: not a harm; says what is wrong and what is allowed.
    """
    known = [one.name for one in fields(Harm)]
    unknown = sorted(set(body) - set(known))
    if unknown:
        msg = f"unknown: {', '.join(unknown)}; allowed: {', '.join(known)}"
        raise ValueError(msg)
    how = body.get("how")
    if how not in HOWS:
        near = get_close_matches(str(how), HOWS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"how: {how!r} is not known;{hint} allowed: {', '.join(HOWS)}"
        raise ValueError(msg)
    values = dict(body)
    for name in ("seconds", "after"):
        if name in values:
            values[name] = _number(name, values[name])
    return Harm(**values)  # type: ignore[arg-type]  # names are checked, values are the user's


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    msg = f"{name}: {value!r} is not a number of seconds"
    raise ValueError(msg)


class HarmBook:
    """The harms that wait for an instance to be launched, oldest first."""

    def __init__(self) -> None:
        self._waiting: list[Harm] = []
        self._lock = threading.Lock()

    def add(self, harm: Harm) -> None:
        with self._lock:
            self._waiting.append(harm)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def listed(self) -> list[Harm]:
        with self._lock:
            return list(self._waiting)

    def take(self, facts: Mapping[str, str]) -> list[Harm]:
        """Return what befalls a new instance, and count it."""
        with self._lock:
            taken = [harm for harm in self._waiting if harm.hits(facts)]
            left = []
            for harm in self._waiting:
                if harm not in taken or harm.count == 0:
                    left.append(harm)
                elif harm.count > 1:
                    left.append(replace(harm, count=harm.count - 1))
            self._waiting = left
            return taken


@dataclass
class Condition:
    """What ails one instance just now; times are monotonic seconds, 0 is never."""

    hidden_until: float = 0.0
    untagged_until: float = 0.0
    impaired_until: float = 0.0
    cut_off_until: float = 0.0
    imds_down_until: float = 0.0
    imds_refuses_until: float = 0.0
    imds_delay: float = 0.0
    no_credentials_until: float = 0.0
    has_no_console: bool = False
    console_delay: float = 0.0
