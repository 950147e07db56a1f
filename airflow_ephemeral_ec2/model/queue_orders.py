"""What people order: hold a job at the door, or let it in first; with who, when and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry, Stage, recall
from airflow_ephemeral_ec2.model.spec import Spec

ALL_DATES = "all"


class OrderAction(StrEnum):
    """What is ordered."""

    HOLD = "hold"
    """Not admitted until it is released; what runs goes on."""
    PROMOTE = "promote"
    """Admitted and launched before all others, promoted ones in the order of promotion."""
    RELEASE = "release"
    """Takes both back; only recorded, never in force."""


class OrderTarget(Spec):
    """A job of a payer, for one business date or for all; or one attempt of it."""

    payer: str
    job: str
    business_date: str = ""
    """Empty: all."""
    entry: str = ""
    """Name of the only queue entry that is meant; empty: all of the job and date."""

    def matches(self, entry: QueueEntry) -> bool:
        if self.entry and self.entry != entry.name:
            return False
        same = (self.payer, self.job) == (entry.payer, entry.job)
        return same and self.business_date in ("", entry.business_date)

    @classmethod
    def of(cls, entry: QueueEntry) -> "OrderTarget":
        """Mean one attempt: what is ordered ends with it, and with no other one of its job."""
        return cls(
            payer=entry.payer,
            job=entry.job,
            business_date=entry.business_date,
            entry=entry.name,
        )

    def __str__(self) -> str:
        return f"{self.payer}/{self.job} {self.business_date or 'all dates'}"


class QueueOrder(Spec):
    """One order, as the bucket keeps it."""

    action: OrderAction
    target: OrderTarget
    by: str
    reason: str
    at: float
    """Seconds since 1970, by the bucket's clock."""

    @property
    def key(self) -> str:
        """Its name below ``queue/orders/``."""
        one = f"/{self.target.entry}" if self.target.entry else ""
        return f"{self.action}/{self._job_and_date}{one}"

    @property
    def moment(self) -> tuple[float, str]:
        """When it was given; several attempts promoted by one call stand in their own order."""
        return self.at, self._job_and_date

    @property
    def _job_and_date(self) -> str:
        target = self.target
        return f"{target.payer}/{target.job}/{target.business_date or ALL_DATES}"

    @property
    def sentence(self) -> str:
        """``held by ops "bad file", 01:12Z``."""
        word = "held" if self.action is OrderAction.HOLD else "promoted"
        moment = datetime.fromtimestamp(self.at, UTC)
        return f'{word} by {self.by} "{self.reason}", {moment:%m-%d %H:%MZ}'


def parse_order_key(key: str) -> tuple[OrderAction | None, OrderTarget]:
    """Read the name of an order; the action is None when it is not one of ours."""
    action, *parts = key.split("/")
    is_known = action in (OrderAction.HOLD, OrderAction.PROMOTE) and len(parts) in (3, 4)
    if not is_known or not all(parts):
        return None, OrderTarget(payer="", job="")
    payer, job, date, *entry = parts
    date = "" if date == ALL_DATES else date
    target = OrderTarget(payer=payer, job=job, business_date=date, entry="".join(entry))
    return OrderAction(action), target


def may_be_held(state: EntryState) -> bool:
    """Say whether a hold still keeps an attempt at the door: nobody has asked EC2 for it."""
    return recall(state).stage is Stage.WAITING


def may_be_promoted(state: EntryState) -> bool:
    """Say whether a promotion can still let an attempt in, or be launched, before others."""
    return state.stage is not Stage.LAUNCHED


def find_holds(entries: Iterable[QueueEntry], orders: Iterable[QueueOrder]) -> dict[str, str]:
    """Return entry name -> why it is held."""
    holds = _by_job(order for order in orders if order.action is OrderAction.HOLD)
    if not holds:
        return {}
    return {
        entry.name: order.sentence
        for entry in entries
        for order in holds.get((entry.payer, entry.job), ())
        if order.target.matches(entry)
    }


def find_promoted(entries: Iterable[QueueEntry], orders: Iterable[QueueOrder]) -> Mapping[str, int]:
    """Return entry name -> its place before everybody else: who was promoted first comes first."""
    promoted = [order for order in orders if order.action is OrderAction.PROMOTE]
    if not promoted:
        return {}
    promoted.sort(key=lambda order: order.moment)
    moments = dict.fromkeys(order.moment for order in promoted)
    place_of = {moment: place for place, moment in enumerate(moments)}
    # An array is a thousand attempts of one job, each with its own promotion.
    of_one = {order.target.entry: order for order in reversed(promoted) if order.target.entry}
    of_many = _by_job(order for order in promoted if not order.target.entry)
    places: dict[str, int] = {}
    for entry in entries:
        own = [of_one[entry.name]] if entry.name in of_one else []
        found = [*own, *of_many.get((entry.payer, entry.job), ())]
        meant = [place_of[order.moment] for order in found if order.target.matches(entry)]
        if meant:
            places[entry.name] = min(meant)
    return places


def _by_job(orders: Iterable[QueueOrder]) -> dict[tuple[str, str], list[QueueOrder]]:
    found: dict[tuple[str, str], list[QueueOrder]] = defaultdict(list)
    for order in orders:
        found[order.target.payer, order.target.job].append(order)
    return found
