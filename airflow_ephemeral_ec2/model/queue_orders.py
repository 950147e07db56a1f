"""What people order: hold a job at the door, or let it in first; with who, when and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from airflow_ephemeral_ec2.model.queue import QueueEntry
from airflow_ephemeral_ec2.model.spec import Spec

ALL_DATES = "all"


class OrderAction(StrEnum):
    """What is ordered."""

    HOLD = "hold"
    """Not admitted until it is released; what runs goes on."""
    PROMOTE = "promote"
    """Admitted before all others, promoted ones in the order of promotion."""
    RELEASE = "release"
    """Takes both back; only recorded, never in force."""


class OrderTarget(Spec):
    """A job of a payer, for one business date or for all."""

    payer: str
    job: str
    business_date: str = ""
    """Empty: all."""

    def matches(self, entry: QueueEntry) -> bool:
        same = (self.payer, self.job) == (entry.payer, entry.job)
        return same and self.business_date in ("", entry.business_date)

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
        target = self.target
        return f"{self.action}/{target.payer}/{target.job}/{target.business_date or ALL_DATES}"

    @property
    def sentence(self) -> str:
        """``held by ops "bad file", 01:12Z``."""
        word = "held" if self.action is OrderAction.HOLD else "promoted"
        moment = datetime.fromtimestamp(self.at, UTC)
        return f'{word} by {self.by} "{self.reason}", {moment:%m-%d %H:%MZ}'


def parse_order_key(key: str) -> tuple[OrderAction | None, OrderTarget]:
    """Read the name of an order; the action is None when it is not one of ours."""
    parts = key.split("/")
    nobody = OrderTarget(payer="", job="")
    if len(parts) != 4 or parts[0] not in (OrderAction.HOLD, OrderAction.PROMOTE):
        return None, nobody
    date = "" if parts[3] == ALL_DATES else parts[3]
    return OrderAction(parts[0]), OrderTarget(payer=parts[1], job=parts[2], business_date=date)


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
    promoted.sort(key=lambda order: (order.at, order.key))
    place_of = {order.key: place for place, order in enumerate(promoted)}
    by_job = _by_job(promoted)
    places: dict[str, int] = {}
    for entry in entries:
        for order in by_job.get((entry.payer, entry.job), ()):
            if order.target.matches(entry):
                places.setdefault(entry.name, place_of[order.key])
    return places


def _by_job(orders: Iterable[QueueOrder]) -> dict[tuple[str, str], list[QueueOrder]]:
    found: dict[tuple[str, str], list[QueueOrder]] = defaultdict(list)
    for order in orders:
        found[order.target.payer, order.target.job].append(order)
    return found
