"""EventBridge Scheduler's one-time schedules that end instances: they fire here as on AWS."""

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from moto.scheduler.models import scheduler_backends

_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_TARGET = "aws-sdk:ec2:terminateInstances"
_LOOK_SECONDS = 0.2


def is_due(expression: str, now: datetime) -> bool:
    """Say whether an ``at(...)`` schedule's time has come; other expressions never are."""
    found = _AT.fullmatch(expression)
    return found is not None and datetime.fromisoformat(found.group(1)).replace(tzinfo=UTC) <= now


def instances_of(target: dict[str, Any]) -> Sequence[str]:
    """Return the instances that a schedule's target ends."""
    if not str(target.get("Arn", "")).endswith(_TARGET):
        return ()
    try:
        return [str(one) for one in json.loads(target.get("Input", "{}")).get("InstanceIds", ())]
    except (ValueError, AttributeError):
        return ()


class ScheduleClock:
    """Looks at all schedules of an account, a few times a second."""

    def __init__(self, account: str, terminate: Callable[[str, str, Sequence[str]], None]) -> None:
        """Take what ends instances: (region, name of the schedule, instance ids)."""
        self._account, self._terminate = account, terminate
        threading.Thread(target=self._run, daemon=True, name="schedules").start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            self.look(datetime.now(UTC))

    def look(self, now: datetime) -> None:
        """Fire what is due."""
        for region, backend in list(scheduler_backends[self._account].items()):
            for group in list(backend.schedule_groups.values()):
                for schedule in list(group.schedules.values()):
                    if is_due(schedule.schedule_expression, now):
                        self._fire(region, group, schedule)

    def _fire(self, region: str, group: Any, schedule: Any) -> None:  # noqa: ANN401 - moto is not typed
        self._terminate(region, schedule.name, instances_of(schedule.target))
        # Fired once: ActionAfterCompletion=DELETE takes it away; the others stay and are spent.
        group.schedules.pop(schedule.name, None)
