"""The admission queue: who may launch now, and what everybody else waits for."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.spec import CapacityType, Spec


class QueueEntry(Spec):
    """One open attempt, with all that admission needs to know; never changed once written."""

    version: Literal[1] = 1
    jobkey: str
    attempt: int
    nonce: str
    payer: str
    job: str
    aws_conn_id: str = ""
    region: str = ""
    """Where its machine is looked for if the launch record cannot be read; empty: unknown."""
    business_date: str
    priority: int
    vcpus: int
    is_awaited: bool = True
    """False when the task does not wait for the end (``wait_for_completion=False``)."""
    capacity_type: CapacityType
    depends_on: tuple[str, ...]
    max_runtime: int
    max_wait: int | None
    requested_at: float
    supersedes: int | None
    limit_vcpus: int | None
    table_version: str
    title: str

    @property
    def name(self) -> str:
        """Name of the entry in the bucket."""
        return entry_name(self.jobkey, self.attempt)

    @property
    def label(self) -> str:
        """``zeta/member (priority 900)``."""
        return f"{self.payer}/{self.job} (priority {self.priority})"


class Stage(StrEnum):
    """How far an open attempt has come."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    LAUNCHED = "launched"


class EntryState(Spec):
    """What the controller knows about an open attempt, as the queue state keeps it."""

    sequence: int
    """Order of arrival."""
    stage: Stage = Stage.WAITING
    vcpus: int = 0
    admitted_at: float | None = None
    placement: int | None = None
    instance_id: str | None = None
    arn: str | None = None
    launched_at: float | None = None


UNAVAILABLE_SECONDS = 180.0
"""For so long an offering that was refused is not asked for again, if there is another one."""


class Unavailable(Spec):
    """An offering or a quota that EC2 has nothing left of."""

    until: float
    """Bucket's clock; then the most important job that wants it asks first."""
    code: str


class Lease(Spec):
    """Which controller may act, until when (bucket's clock)."""

    holder: str
    expires_at: float


class QueueState(Spec):
    """The one compare-and-set object that says what is admitted."""

    version: Literal[1] = 1
    revision: str = ""
    """The writer's own nonce: after a lost answer it recognises its write."""
    next_sequence: int = 1
    limit_vcpus: int | None = None
    entries: dict[str, EntryState] = Field(default_factory=dict)
    unavailable: dict[str, Unavailable] = Field(default_factory=dict)
    """Offering (connection, region, type, subnet, capacity type) or quota -> its refusal."""
    lease: Lease | None = None
    is_rebuilt: bool = False
    """The state was lost: nobody is admitted before EC2 has been asked what is out."""


@dataclass(frozen=True)
class Wait:
    """Why an entry waits, and behind whom; a sentence for people."""

    reason: str


@dataclass(frozen=True)
class Admission:
    """What one look at the queue decides."""

    admitted: tuple[str, ...]
    """Names of entries that may launch now, in order."""
    waiting: Mapping[str, Wait]


def admission_order(entry: QueueEntry, state: EntryState) -> tuple[int, str, int]:
    """Who comes first: priority, then the earlier business date, then arrival."""
    return -entry.priority, entry.business_date, state.sequence


def admit(
    entries: Sequence[QueueEntry],
    state: QueueState,
    *,
    blocked: Mapping[str, str],
) -> Admission:
    """
    Admit by priority, then business date, then arrival, within the vCPU limit.

    Strict: the first entry that does not fit holds back all behind it. An entry in ``blocked``
    (name -> why) waits for something of its own and holds back nobody.
    """
    in_use = sum(s.vcpus for s in state.entries.values() if s.stage is not Stage.WAITING)
    waiting = [e for e in entries if state.entries[e.name].stage is Stage.WAITING]
    waiting.sort(key=lambda entry: admission_order(entry, state.entries[entry.name]))
    limit = state.limit_vcpus
    admitted: list[str] = []
    waits: dict[str, Wait] = {}
    head: QueueEntry | None = None
    for entry in waiting:
        if entry.name in blocked:
            waits[entry.name] = Wait(blocked[entry.name])
        elif head is not None:
            waits[entry.name] = Wait(_no_room(entry, in_use, limit, head))
        elif limit is None or in_use + entry.vcpus <= limit:
            admitted.append(entry.name)
            in_use += entry.vcpus
        else:
            head = entry
            waits[entry.name] = Wait(_no_room(entry, in_use, limit, None))
    return Admission(tuple(admitted), waits)


def _no_room(entry: QueueEntry, in_use: int, limit: int | None, head: QueueEntry | None) -> str:
    limit = limit or 0
    text = f"{entry.vcpus} vCPU wanted, {max(limit - in_use, 0)} of {limit} free"
    if head is not None:
        return f"{text}; behind {head.label}"
    if entry.vcpus > limit:
        return f"{text}; it can never fit: raise limits.vcpus or choose a smaller type"
    return f"{text}; first in line"


def merge_arrivals(
    state: QueueState, entries: Sequence[QueueEntry], listed: AbstractSet[str] = frozenset()
) -> QueueState:
    """
    Give each entry that is new a place in the order of arrival, and forget those that are gone.

    The limit in force is the one that the latest arrival brought.

    :param listed: names in the queue, those that cannot be read included: their machines count
    """
    names = {entry.name for entry in entries} | listed
    known = {name: found for name, found in state.entries.items() if name in names}
    arrivals = sorted(
        (e for e in entries if e.name not in state.entries), key=lambda e: (e.requested_at, e.name)
    )
    sequence, limit = state.next_sequence, state.limit_vcpus
    for entry in arrivals:
        known[entry.name] = EntryState(sequence=sequence)
        sequence += 1
        limit = entry.limit_vcpus
    return state.model_copy(
        update={"entries": known, "next_sequence": sequence, "limit_vcpus": limit}
    )


def remember_refusal(
    state: QueueState, offering: str, code: str, now: float, seconds: float = UNAVAILABLE_SECONDS
) -> QueueState:
    """Remember that an offering has no capacity now; refusals that are over are dropped."""
    known = {name: found for name, found in state.unavailable.items() if found.until > now}
    known[offering] = Unavailable(until=now + seconds, code=code)
    return state.model_copy(update={"unavailable": known})


def forget_refusal(state: QueueState, offering: str) -> QueueState:
    """Forget the refusal of an offering that gave a machine."""
    if offering not in state.unavailable:
        return state
    known = {name: found for name, found in state.unavailable.items() if name != offering}
    return state.model_copy(update={"unavailable": known})


def find_refusal(state: QueueState, offering: str, now: float) -> Unavailable | None:
    """Return the refusal of an offering while it counts."""
    found = state.unavailable.get(offering)
    return found if found is not None and found.until > now else None
