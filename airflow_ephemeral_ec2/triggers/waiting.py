"""One controller per event loop, shared by all triggers of a triggerer process."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import logging
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError, EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.garbage import SparedHeap
from airflow_ephemeral_ec2.triggers.headroom import Headroom

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.controller import Controller
    from airflow_ephemeral_ec2.model.record import OutcomeRecord
    from airflow_ephemeral_ec2.settings import Settings

log = logging.getLogger(__name__)
MAX_PAUSE_SECONDS = 30.0
LEAST_PAUSE_SECONDS = 0.5
LAUNCH_SECONDS = 1.0
"""Between two looks for launches whose turn has come: EC2 takes two a second."""
EXTRA_LOOKS = 3
"""So many looks a minute are made sooner because a machine is expected to end."""


@dataclass(frozen=True)
class Ending:
    """What a waiter gets: the outcome, or only the machine when it waits for the launch."""

    outcome: OutcomeRecord | None
    instance_id: str | None = None


@dataclass(eq=False)
class _Waiter:
    name: str
    until_launch: bool
    inbox: asyncio.Queue[str | Ending | Exception]
    told: int = 0
    is_served: bool = False


def read_ending(
    controller: Controller, ended: dict[str, OutcomeRecord], name: str, *, until_launch: bool
) -> Ending | None:
    """Say whether an attempt is where its waiter wants it."""
    if name in ended:
        outcome = ended[name]
        machine = outcome.machine.instance_id if outcome.machine else None
        return Ending(outcome, machine)
    instance_id = controller.machine_of(name) if until_launch else None
    return Ending(None, instance_id) if instance_id else None


class ControllerTask:
    """Runs a controller in threads for as long as somebody waits or a machine is out."""

    def __init__(self, open_controller: Callable[[], Controller], poll_seconds: float) -> None:
        """Take what makes the controller, in a thread: nothing may block or suspend here."""
        self._open_controller = open_controller
        self._poll_seconds = poll_seconds
        self._extra_looks: collections.deque[float] = collections.deque(maxlen=EXTRA_LOOKS)
        self._waiters: set[_Waiter] = set()
        self._arrived, self._heap = 0, SparedHeap()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._has_passed = False

    async def wait(
        self, name: str, tell: Callable[[str], None], *, until_launch: bool = False
    ) -> Ending:
        """
        Wait for the outcome of an attempt, or for its launch.

        :param tell: gets each line of the attempt's story as it happens
        :raises AwsError: AWS refuses, and did so from the start
        """
        # Lines travel through an inbox, so that they are logged in the context of the one who waits.
        waiter = _Waiter(name, until_launch, asyncio.Queue())
        self._waiters.add(waiter)
        self._arrived += 1
        self._heap.update(len(self._waiters), self._arrived)
        self._wake.set()
        if self._task is None or self._task.done():
            # An empty context: it must not inherit the log context of the first trigger.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), context=contextvars.Context()
            )
        try:
            while True:
                item = await waiter.inbox.get()
                if isinstance(item, Ending):
                    return item
                if isinstance(item, Exception):
                    raise item
                tell(item)
        finally:
            self._waiters.discard(waiter)

    async def _run(self) -> None:
        controller = None
        try:
            controller = await asyncio.to_thread(self._open_controller)
            await self._drive(controller)
        except asyncio.CancelledError:
            # The loop ends; the next controller should not have to wait for the lease to end.
            if controller is not None:
                with contextlib.suppress(EphemeralEC2Error):
                    controller.release()
            raise
        except EphemeralEC2Error as error:
            self._fail(error)
        except Exception as error:
            # Whatever it is, those who wait must hear of it instead of waiting for ever.
            log.exception("the controller stopped; the next trigger starts it again")
            self._fail(error)

    async def _drive(self, controller: Controller) -> None:
        pause, headroom = self._poll_seconds, Headroom()
        while True:
            while self._waiters or controller.has_work:
                self._wake.clear()
                pause = await self._pass(controller, pause)
                headroom.tell_if_short(controller.awaited)
                self._heap.update(len(self._waiters), self._arrived)
                await self._pause(controller, pause)
            self._heap.update(0, self._arrived)
            await asyncio.to_thread(controller.release)
            # Somebody may have come while the lease was given back.
            if not self._waiters:
                return

    async def _pause(self, controller: Controller, seconds: float) -> None:
        """Wait for the next pass or for somebody new; launches go on meanwhile."""
        loop = asyncio.get_running_loop()
        began, least = loop.time(), min(seconds, LEAST_PAUSE_SECONDS)
        # A thousand triggers that start together must not make a thousand passes.
        await asyncio.sleep(least)
        while (left := began + seconds - loop.time()) > 0:
            is_launching = controller.has_launches
            step = min(left, LAUNCH_SECONDS) if is_launching else left
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), step)
                return
            if is_launching and began + seconds > loop.time():
                try:
                    await asyncio.to_thread(controller.launch)
                except AwsError as error:
                    log.warning("cannot ask AWS, will ask again: %s", error)
                    return

    async def _pass(self, controller: Controller, pause: float) -> float:
        """Make one pass and return the seconds until the next."""
        names = tuple({waiter.name for waiter in self._waiters})
        try:
            ended = await asyncio.to_thread(controller.follow, names)
        except AwsError as error:
            if not error.retryable and not self._has_passed:
                raise
            log.warning("cannot ask AWS, will ask again: %s", error)
            for waiter in self._waiters:
                waiter.inbox.put_nowait(f"cannot ask AWS, will ask again: {error}")
            return min(pause * 2, MAX_PAUSE_SECONDS)
        self._has_passed = True
        for waiter in tuple(self._waiters):
            self._serve(controller, waiter, ended)
        return self._choose_pause(controller)

    def _choose_pause(self, controller: Controller) -> float:
        """Look again sooner when a machine is about to end, a few times a minute at most."""
        now = asyncio.get_running_loop().time()
        if self._extra_looks.maxlen == len(self._extra_looks) and now - self._extra_looks[0] < 60:
            return self._poll_seconds
        if not controller.expects_end(self._poll_seconds):
            return self._poll_seconds
        self._extra_looks.append(now)
        return self._poll_seconds / 2

    def _serve(
        self, controller: Controller, waiter: _Waiter, ended: dict[str, OutcomeRecord]
    ) -> None:
        story = controller.story_of(waiter.name)
        for line in story[waiter.told :]:
            waiter.inbox.put_nowait(line)
        waiter.told = len(story)
        tampering = controller.tampering_with(waiter.name)
        if tampering is not None:
            waiter.inbox.put_nowait(tampering)
        ending = read_ending(controller, ended, waiter.name, until_launch=waiter.until_launch)
        if ending is not None and not waiter.is_served:
            waiter.is_served = True
            waiter.inbox.put_nowait(ending)
            if ending.outcome is not None:
                controller.forget(waiter.name)

    def _fail(self, error: Exception) -> None:
        for waiter in self._waiters:
            waiter.inbox.put_nowait(error)


_tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, ControllerTask]] = (
    weakref.WeakKeyDictionary()
)


def controller_task(settings: Settings) -> ControllerTask:
    """Return this event loop's controller for an environment."""
    from airflow_ephemeral_ec2.hooks.ec2 import open_controller  # noqa: PLC0415 - Airflow; the CLI waits without it

    tasks = _tasks.setdefault(asyncio.get_running_loop(), {})
    if settings not in tasks:
        opener = functools.partial(open_controller, settings)
        tasks[settings] = ControllerTask(opener, settings.poll_seconds)
    return tasks[settings]


def wait_in_this_thread(
    controller: Controller,
    name: str,
    tell: Callable[[str], None],
    *,
    poll_seconds: float,
    until_launch: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Ending:
    """
    Run the same controller on a worker until the attempt is where it should be.

    :raises AwsError: AWS refuses, and did so from the start
    """
    told, pause, has_passed = 0, poll_seconds, False
    while True:
        try:
            ended = controller.follow((name,))
            has_passed, pause = True, poll_seconds
        except AwsError as error:
            if not error.retryable and not has_passed:
                raise
            tell(f"cannot ask AWS, will ask again: {error}")
            ended, pause = {}, min(pause * 2, MAX_PAUSE_SECONDS)
        story = controller.story_of(name)
        for line in story[told:]:
            tell(line)
        told = len(story)
        tampering = controller.tampering_with(name)
        ending = read_ending(controller, ended, name, until_launch=until_launch)
        if ending is not None or tampering is not None:
            controller.release()
        if tampering is not None:
            raise tampering
        if ending is not None:
            return ending
        sleep(pause)
