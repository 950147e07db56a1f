"""What a waiting task waits for, as its XCom: the line that Airflow's page of the task shows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.queue import PACED
from airflow_ephemeral_ec2.triggers.outage import ANSWERS_AGAIN, CANNOT_ASK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_ephemeral_ec2.model.identity import TaskIdentity

log = logging.getLogger(__name__)
STATE_KEY = "state"
FIRST_SECONDS = 15.0
"""A task that does not wait for so long gets no line."""
PAUSE_SECONDS = 60.0
"""Between two lines of one task."""
LAST_SECONDS = 5.0
"""A task is not held up for longer by its last line."""
_WAITS = ("queued: ", PACED)

_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


def write_state(identity: TaskIdentity, line: str) -> None:
    """
    Write the line as XCom ``state`` of a task instance.

    Blocking; Airflow 3 asks the API server through the triggerer (``ToTriggerSupervisor`` has
    ``SetXCom`` and no task state store), Airflow 2 its database.
    """
    from airflow.providers.common.compat.sdk import XCom  # noqa: PLC0415 - finds the XCom backend

    XCom.set(
        key=STATE_KEY,
        value=line,
        dag_id=identity.dag_id,
        task_id=identity.task_id,
        run_id=identity.run_id,
        map_index=identity.map_index,
    )


class StateLine:
    """The line of one task: written on change, seldom, and never an error."""

    def __init__(
        self,
        write: Callable[[str], None],
        first_seconds: float = FIRST_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._write = write
        self._first_seconds, self._pause_seconds = first_seconds, pause_seconds
        self._line = self._written = self._story = ""
        self._changed = asyncio.Event()

    def tell(self, line: str) -> None:
        """Take a line of the story; what comes after the wait counts only when a wait was shown."""
        if line == ANSWERS_AGAIN:
            line = self._story
        elif not line.startswith(CANNOT_ASK):
            self._story = line
        is_shown = line.startswith(_WAITS) or bool(self._written)
        self._line = line if is_shown else ""
        self._changed.set()

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Write what changes while the block runs, and what it ended with."""
        task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
        if self._written:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._put(), LAST_SECONDS)

    async def _run(self) -> None:
        await asyncio.sleep(self._first_seconds)
        while True:
            await self._changed.wait()
            self._changed.clear()
            if await self._put():
                await asyncio.sleep(self._pause_seconds)

    async def _put(self) -> bool:
        """Write the newest line unless it is there; False when there is nothing to write."""
        # One after another: a thousand tasks that wait must not ask the API server at once.
        lock = _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            line = self._line
            if not line or line == self._written:
                return False
            # Before it is: what is told meanwhile comes after it.
            before, self._written = self._written, line
            try:
                await asyncio.to_thread(self._write, line)
            except Exception as error:  # noqa: BLE001 - whatever it is, the task goes on
                log.warning("cannot show the state of the task: %s", error)
                self._written = before
        return True
