"""What the bucket keeps about the queue: entries, and the one state of all of them."""

from enum import StrEnum
from functools import cached_property
from typing import Literal

from pydantic import Field

from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.spec import CapacityType, Limits, Spec

Place = tuple[str, str]
"""Connection and region, through which machines are reached."""


class QueueEntry(Spec):
    """One open attempt, with all that admission and the watch need; never changed once written."""

    version: Literal[1] = 1
    jobkey: str
    attempt: int
    nonce: str
    run_key: str = ""
    """Names the DAG run that asks for it."""
    dag_id: str = ""
    payer: str
    job: str
    aws_conn_id: str = ""
    region: str = ""
    """Where its machine is looked for if the launch record cannot be read; empty: unknown."""
    account: str = ""
    """AWS account of the connection; empty where STS could not be asked."""
    business_date: str
    priority: int
    priority_reason: str = ""
    """Why the priority is not the table's; empty: it is."""
    is_backfill: bool = False
    """Stands behind all that is not a backfill."""
    vcpus: int
    is_awaited: bool = True
    """False when the task does not wait for the end (``wait_for_completion=False``)."""
    capacity_type: CapacityType
    depends_on: tuple[str, ...]
    """Jobs that must have a recorded success first; empty where the row opts out."""
    cross_run_order: bool = True
    """False where other runs are none of its business."""
    dependents: tuple[str, ...] = ()
    """Jobs of the payer that read, directly or not, what this one writes."""
    order_override: str = ""
    """Why it need not wait for the jobs that it depends on; empty: it has to."""
    in_order_by_date: bool = False
    array_index: int = 0
    array_size: int = 1
    max_runtime: int
    boot_timeout: int = 600
    stop_grace: int = 20
    max_wait: int | None
    requested_at: float
    supersedes: int | None
    limits: Limits = Limits()
    table: str = ""
    """Name of the table's file: versions are compared per table."""
    table_version: str
    title: str

    # What is made of what never changes is made once: decisions ask for it thousands of times.

    @cached_property
    def name(self) -> str:
        """Name of the entry in the bucket."""
        return entry_name(self.jobkey, self.attempt)

    @cached_property
    def day(self) -> tuple[str, str]:
        """Payer and business date."""
        return self.payer, self.business_date

    @property
    def label(self) -> str:
        """``zeta/member (priority 900)``."""
        return f"{self.payer}/{self.job} (priority {self.priority})"

    @property
    def place(self) -> Place:
        """Where its machine is."""
        return self.aws_conn_id, self.region

    @cached_property
    def max_lifetime(self) -> int:
        """Seconds from the launch after which its machine is gone, whatever happens."""
        return self.boot_timeout + self.max_runtime + self.stop_grace + 300

    @cached_property
    def markets(self) -> tuple[str, ...]:
        """Capacity types that its machine may turn out to have."""
        if self.capacity_type is CapacityType.SPOT_THEN_ON_DEMAND:
            return "spot", "on-demand"
        return (str(self.capacity_type),)


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
    pool: str = ""
    """Account and region that its machine counts against."""
    market: str = ""
    """Capacity type of its machine, once it has one."""
    is_ending: bool = False
    """Its machine is shutting down."""
    is_asked: bool = False
    """EC2 may have been asked for its machine and may have one; written before it is asked."""
    may_have_asked: bool = False
    """Its machine may have been asked for before the queue state was lost."""
    admitted_at: float | None = None
    placement: int | None = None
    instance_id: str | None = None
    arn: str | None = None
    launched_at: float | None = None
    word: str = ""
    """What its task was told last, until it is launched; tasks that others follow read it here."""


def recall(state: EntryState) -> EntryState:
    """
    Let who was admitted and surely not asked for wait again, for the next decision.

    Launches are paced, and a controller may die before them: whoever is more important and has
    come meanwhile must not find its room taken by them.
    """
    if state.stage is not Stage.ADMITTED or state.is_asked or state.may_have_asked:
        return state
    return state.model_copy(
        update={"stage": Stage.WAITING, "vcpus": 0, "pool": "", "admitted_at": None}
    )


PACED = "admitted; launches are paced at EC2's rate"
"""Of whom has room and waits for its turn to be launched."""


def describe_launch(state: EntryState) -> str:
    """Say what keeps an admitted attempt from its launch; the word is what its task was told last."""
    if state.is_asked or not state.word:
        return "being launched"
    if state.word.startswith(PACED):
        # How many were before it counted when it was told.
        return PACED.removeprefix("admitted; ")
    return state.word.removeprefix("queued: ")


def describe_state(state: EntryState) -> str:
    """Say how far an open attempt is, for a task that follows it from afar; empty: nothing new."""
    if state.stage is Stage.LAUNCHED and state.instance_id:
        return f"launched {state.instance_id}" + (f" ({state.market})" if state.market else "")
    return state.word


class Unavailable(Spec):
    """An offering or a quota that EC2 has nothing left of."""

    until: float
    """Bucket's clock; then the most important job that wants it asks first."""
    code: str


class Lease(Spec):
    """Which controller may act, until when (bucket's clock)."""

    holder: str
    expires_at: float


class TableInForce(Spec):
    """The newest version of a table that came with an entry, and the limits that it brought."""

    version: str
    limits: Limits = Limits()
    seen_at: float
    """When an entry last brought this version (bucket's clock)."""
    older: dict[str, float] = Field(default_factory=dict)
    """Versions that were replaced -> when an entry last brought them."""
    flapped_at: float | None = None
    """When an entry last brought an older version again."""
    flapped_with: str = ""


class QueueState(Spec):
    """The one compare-and-set object that says what is admitted."""

    version: Literal[1] = 1
    revision: str = ""
    """The writer's own nonce: after a lost answer it recognises its write."""
    next_sequence: int = 1
    entries: dict[str, EntryState] = Field(default_factory=dict)
    tables: dict[str, TableInForce] = Field(default_factory=dict)
    """By the name of the table."""
    accounts: dict[str, str] = Field(default_factory=dict)
    """Airflow connection -> AWS account, as entries said."""
    places: tuple[Place, ...] = ()
    """Where the machines of the open attempts may be, should nothing of an attempt be readable."""
    unavailable: dict[str, Unavailable] = Field(default_factory=dict)
    """Offering (connection, region, type, subnet, capacity type) or quota -> its refusal."""
    lease: Lease | None = None
    is_rebuilt: bool = False
    """The state was lost: nobody is admitted before EC2 has been asked what is out."""


UNAVAILABLE_SECONDS = 180.0
"""For so long an offering that was refused is not asked for again, if there is another one."""


def remember_refusal(
    known: dict[str, Unavailable],
    offering: str,
    code: str,
    now: float,
    seconds: float = UNAVAILABLE_SECONDS,
) -> dict[str, Unavailable]:
    """Remember that an offering has no capacity now; refusals that are over are dropped."""
    alive = {name: found for name, found in known.items() if found.until > now}
    return alive | {offering: Unavailable(until=now + seconds, code=code)}


def forget_refusal(known: dict[str, Unavailable], offering: str) -> dict[str, Unavailable]:
    """Forget the refusal of an offering that gave a machine."""
    return {name: found for name, found in known.items() if name != offering}


def find_refusal(known: dict[str, Unavailable], offering: str, now: float) -> Unavailable | None:
    """Return the refusal of an offering while it counts."""
    found = known.get(offering)
    return found if found is not None and found.until > now else None
