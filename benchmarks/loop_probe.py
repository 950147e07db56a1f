"""Triggers of the benchmark's own: one that measures the event loop, one that only sleeps."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROBE_SECONDS = 0.05


class LoopProbeTrigger(BaseTrigger):
    """
    Write down when the event loop did not come back in time.

    Twice in a row it should run every 50 ms. What is written is the whole time between two runs:
    never less than the loop was blocked for, and at most 50 ms more.

    :param path: gets a JSON line ``[time.monotonic(), seconds]`` per gap above ``threshold``
    :param threshold: seconds
    """

    def __init__(self, path: str, threshold: float = 0.1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow does not annotate triggers
        self.path, self.threshold = path, threshold

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {"path": self.path, "threshold": self.threshold}
        return "benchmarks.loop_probe.LoopProbeTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        with Path(self.path).open("a", buffering=1) as file:  # noqa: ASYNC230 - a line now and then
            last = time.monotonic()
            while True:
                await asyncio.sleep(PROBE_SECONDS)
                now = time.monotonic()
                if now - last > self.threshold:
                    file.write(json.dumps([now, round(now - last, 4)]) + "\n")
                last = now
        yield TriggerEvent({})


class SleepingTrigger(BaseTrigger):
    """What a waiting trigger costs at the least: it sleeps and never ends."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.loop_probe.SleepingTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(3_600)
        yield TriggerEvent({})
