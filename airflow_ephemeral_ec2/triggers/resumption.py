"""When a trigger may resume its task: not before Airflow has put the deferral behind it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from airflow.triggers.base import TaskSuccessEvent

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger, TriggerEvent

SETTLE_SECONDS = 8.0
"""
A worker notices up to ``[workers] min_heartbeat_interval`` (5 s) late that its task has deferred,
and the scheduler hears of it a loop later. A task that was resumed and queued again before that
is failed: "finished with state success, but the task instance's state attribute is queued"
(Airflow 3.3: ``supervisor._monitor_subprocess``, ``process_executor_events``).
"""


def seconds_to_settle(event: TriggerEvent, *, is_awaited: bool, waited: float) -> float:
    """
    Say how long to hold an event back.

    :param is_awaited: a task instance is behind the trigger; ``dag.test()`` has none
    :param waited: seconds since the trigger started
    """
    if not is_awaited or isinstance(event, TaskSuccessEvent):
        return 0.0
    return max(SETTLE_SECONDS - waited, 0.0)


async def settle(trigger: BaseTrigger, event: TriggerEvent, began: float) -> None:
    """Wait until the task may be resumed; ``began`` is ``time.monotonic()`` of the trigger's start."""
    is_awaited = getattr(trigger, "task_instance", None) is not None
    waited = time.monotonic() - began
    await asyncio.sleep(seconds_to_settle(event, is_awaited=is_awaited, waited=waited))
