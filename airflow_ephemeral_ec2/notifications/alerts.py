"""
Ready-made callbacks: who is told of a failure, of missing capacity, of a long wait, of an orphan.

Any notifier of any provider plugs in (Airflow's ``BaseNotifier``). Its templates get
``{{ ephemeral_ec2 }}`` with ``event, payer, job, business_date, attempt, outcome, reason, link,
job_link``; never a word of the job's output.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_ephemeral_ec2.model.task_context import PLACE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)
CONTEXT_KEY = "ephemeral_ec2"
FAILED, NO_CAPACITY = "failed", "no_capacity"
WAITING, ORPHAN, QUOTA = "waiting", "orphan", "quota"
_FIELDS = ("payer", "job", "business_date", "attempt", "outcome", "reason")
_CAPACITY_OUTCOMES = ("no_capacity", "quota")

Notifiers = BaseNotifier | Sequence[BaseNotifier]


@dataclass(frozen=True)
class Alerts:
    """
    Who is told of what, for ``payer_dags(alerts=...)``.

    :param failed: a task has failed for good
    :param no_capacity: an attempt ended because EC2 has no machine or the account's EBS quota is
        reached, whether or not it is tried again; a vCPU quota makes jobs wait, and the reaper
        tells of it (``EphemeralEC2ReapOperator(on_quota=...)``)
    """

    failed: Notifiers = ()
    no_capacity: Notifiers = ()

    def arguments(self) -> dict[str, Any]:
        """Return the operator arguments that bind the callbacks."""
        capacity = alert_on_no_capacity(self.no_capacity)
        found: dict[str, Any] = {}
        if self.failed or capacity:
            found["on_failure_callback"] = [*alert_on_failure(self.failed), *capacity]
        if capacity:
            found["on_retry_callback"] = capacity
        return found


def alert_on_failure(notifiers: Notifiers) -> list[Callable[[Any], None]]:
    """Return callbacks for ``on_failure_callback``."""
    return [Alert(one, FAILED) for one in _listed(notifiers)]


def alert_on_no_capacity(notifiers: Notifiers) -> list[Callable[[Any], None]]:
    """Return callbacks for ``on_failure_callback`` and ``on_retry_callback``."""
    return [Alert(one, NO_CAPACITY, _CAPACITY_OUTCOMES) for one in _listed(notifiers)]


class Alert:
    """One notifier bound to one event; a callback of Airflow."""

    def __init__(
        self, notifier: BaseNotifier, event: str, outcomes: Sequence[str] | None = None
    ) -> None:
        """
        Bind a notifier.

        :param outcomes: only attempts that ended like this; None: all
        """
        self.notifier, self.event, self.outcomes = notifier, event, outcomes

    def __call__(self, context: Any) -> None:  # noqa: ANN401 - Airflow's Context differs per version
        """Tell, if the task's attempt ended in a way that this alert is about."""
        payload = payload_of(context, self.event)
        if self.outcomes is None or payload["outcome"] in self.outcomes:
            tell(self.notifier, payload, context)


def payload_of(context: Any, event: str) -> dict[str, Any]:  # noqa: ANN401
    """
    Describe a task's last attempt by its XComs; free of job output.

    The text of the exception is not taken: an error of somebody else may hold anything.
    """
    ti, task = context["ti"], context.get("task")
    found = _pull(ti, "return_value")
    if not found.get("business_date"):
        # It was ended before it had an outcome: by its execution_timeout, by a person, by a crash.
        found = {**_pull(ti, PLACE_KEY), **found}
    payload = {name: found.get(name) for name in _FIELDS}
    payload["payer"] = payload["payer"] or getattr(task, "payer", None)
    payload["job"] = payload["job"] or getattr(task, "job", None)
    payload["reason"] = (
        payload["reason"] or "it failed before a machine had an outcome; see the log"
    )
    link = getattr(ti, "log_url", None)
    return {"event": event, **payload, "link": link, "job_link": link}


def _pull(ti: Any, key: str) -> Mapping[str, Any]:  # noqa: ANN401
    try:
        value = ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
    except Exception:
        # The DAG processor, for example, may have no way to XCom: who fails is known all the same.
        log.warning("cannot read what the attempt came to", exc_info=True)
        return {}
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, dict) else {}


def tell(notifier: BaseNotifier, payload: Mapping[str, Any], context: Any) -> None:  # noqa: ANN401
    """Run a notifier with the payload in its templates' context."""
    # Rendering replaces the templates of a notifier; it may be needed for another payload.
    copy(notifier)({**context, CONTEXT_KEY: dict(payload)})


def _listed(notifiers: Notifiers) -> Sequence[BaseNotifier]:
    return notifiers if isinstance(notifiers, Sequence) else [notifiers]
