"""One controller per event loop, shared by all triggers of a triggerer process."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import logging
import random
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_ephemeral_ec2.exceptions import AwsError, EphemeralEC2Error
from airflow_ephemeral_ec2.hooks.garbage import SparedHeap
from airflow_ephemeral_ec2.model.watch import EXTRA_LOOKS, may_look_sooner, spread
from airflow_ephemeral_ec2.triggers.headroom import Headroom
from airflow_ephemeral_ec2.triggers.outage import ANSWERS_AGAIN, Outage

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
SLICE = 100
"""So many are served in one turn of the loop: each of them wakes up and logs."""
CLOSE_SECONDS = 10.0
"""A loop that ends waits so long for its pass, which may be launching."""


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
    told: int = 0  # lines of the story
    heard: int = 0  # lines of the outage
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

    def __init__(
        self,
        open_controller: Callable[[], Controller],
        poll_seconds: float,
        hear_refusal: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Take what makes the controller, in a thread: nothing may block or suspend here.

        :param hear_refusal: called in a thread when AWS refuses: the connection may be being mended
        """
        self._open_controller, self._hear_refusal = open_controller, hear_refusal
        self._poll_seconds = poll_seconds
        self._extra_looks: collections.deque[float] = collections.deque(maxlen=EXTRA_LOOKS)
        self._waiters: set[_Waiter] = set()
        self._arrived, self._heap = 0, SparedHeap()
        self._task: asyncio.Task[None] | None = None
        self._wake, self._outage = asyncio.Event(), Outage()
        self._pass_under_way: asyncio.Future[Any] | None = None

    async def wait(
        self, name: str, tell: Callable[[str], None], *, until_launch: bool = False
    ) -> Ending:
        """
        Wait for the outcome of an attempt, or for its launch.

        While AWS cannot be asked, or refuses, nothing is known: it is told, and asked again.

        :param tell: gets each line of the attempt's story as it happens
        :raises TamperedObjectError: so little of the attempt can be read that it never ends
        """
        # Lines travel through an inbox, so that they are logged in the context of the one who waits.
        waiter = _Waiter(name, until_launch, asyncio.Queue())
        self._waiters.add(waiter)
        self._tell_outage(waiter)
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
            controller = await self._open()
            if controller is not None:
                await self._drive(controller)
        except asyncio.CancelledError:
            if controller is not None:
                await self._close(controller)
            raise
        except EphemeralEC2Error as error:
            await self._fail(error)
        except Exception as error:
            # Whatever it is, those who wait must hear of it instead of waiting for ever.
            log.exception("the controller stopped; the next trigger starts it again")
            await self._fail(error)
        finally:
            self._outage.end()

    async def _open(self) -> Controller | None:
        """Make the controller as soon as AWS can be reached; None when nobody waits any more."""
        pause = self._poll_seconds
        while self._waiters:
            self._wake.clear()
            try:
                return await asyncio.to_thread(self._open_controller)
            except AwsError as error:
                pause = await self._back_off(error, pause)
            await self._pause(None, pause)
        return None

    async def _close(self, controller: Controller) -> None:
        """Give the lease back when the loop ends: the next controller need not wait for its end."""
        controller.close()
        if self._pass_under_way is not None and not self._pass_under_way.done():
            await asyncio.wait([self._pass_under_way], timeout=CLOSE_SECONDS)
            if not self._pass_under_way.done():
                # It may be about to launch: nobody else should act before the lease has run out.
                return
        with contextlib.suppress(EphemeralEC2Error):
            await asyncio.to_thread(controller.release)

    async def _drive(self, controller: Controller) -> None:
        pause, headroom = self._poll_seconds, Headroom()
        while True:
            while self._waiters or controller.has_work:
                self._wake.clear()
                pause = await self._pass(controller, pause)
                headroom.tell_if_short(len(self._waiters))
                self._heap.update(len(self._waiters), self._arrived)
                await self._pause(controller, pause)
            self._heap.update(0, self._arrived)
            try:
                await self._in_thread(controller.release)
            except AwsError as error:
                log.warning("cannot give the lease back, it ends by itself: %s", error)
            # Somebody may have come while the lease was given back.
            if not self._waiters:
                return

    async def _in_thread(self, work: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        """Run a part of a pass in a thread; ``_close`` waits for it."""
        run = functools.partial(contextvars.copy_context().run, work, *args)
        self._pass_under_way = asyncio.get_running_loop().run_in_executor(None, run)
        return await asyncio.shield(self._pass_under_way)

    async def _pause(self, controller: Controller | None, seconds: float) -> None:
        """Wait for the next pass or for somebody new; launches go on meanwhile."""
        loop = asyncio.get_running_loop()
        began, least = loop.time(), min(seconds, LEAST_PAUSE_SECONDS)
        # A thousand triggers that start together must not make a thousand passes.
        await asyncio.sleep(least)
        while (left := began + seconds - loop.time()) > 0:
            launching = controller if controller and controller.has_launches else None
            step = min(left, LAUNCH_SECONDS) if launching else left
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), step)
                return
            if launching and began + seconds > loop.time():
                try:
                    await self._in_thread(launching.launch)
                except AwsError as error:
                    log.warning("cannot ask AWS, will ask again: %s", error)
                    return

    async def _pass(self, controller: Controller, pause: float) -> float:
        """Make one pass and return the seconds until the next."""
        names = tuple({waiter.name for waiter in self._waiters})
        try:
            ended = await self._in_thread(controller.follow, names)
        except AwsError as error:
            return await self._back_off(error, pause)
        for line in self._outage.end():
            log.warning("%s", line)
        await self._for_all(lambda waiter: self._serve(controller, waiter, ended))
        chance = random.random()  # noqa: S311 - no secret
        return spread(self._choose_pause(controller), chance)

    async def _back_off(self, error: AwsError, pause: float) -> float:
        """Tell those who wait what is unknown and why; return the seconds until the next try."""
        for line in self._outage.note(error):
            log.warning("%s", line)
        await self._for_all(self._tell_outage)
        if not error.retryable:
            await asyncio.to_thread(self._hear_refusal)
        return min(pause * 2, MAX_PAUSE_SECONDS)

    async def _for_all(self, serve: Callable[[_Waiter], None]) -> None:
        """Serve all who wait, with a turn of the loop for others after some of them."""
        waiters = tuple(self._waiters)
        for first in range(0, len(waiters), SLICE):
            for waiter in waiters[first : first + SLICE]:
                serve(waiter)
            await asyncio.sleep(0)

    def _tell_outage(self, waiter: _Waiter) -> None:
        lines = self._outage.lines
        if waiter.heard and not lines:
            waiter.inbox.put_nowait(ANSWERS_AGAIN)
        for line in lines[waiter.heard :]:
            waiter.inbox.put_nowait(line)
        waiter.heard = len(lines)

    def _choose_pause(self, controller: Controller) -> float:
        """Look again sooner when a machine is about to end, a few times a minute at most."""
        now = asyncio.get_running_loop().time()
        is_free = may_look_sooner(self._extra_looks, now)
        if not (is_free and controller.expects_end(self._poll_seconds)):
            return self._poll_seconds
        self._extra_looks.append(now)
        return self._poll_seconds / 2

    def _serve(
        self, controller: Controller, waiter: _Waiter, ended: dict[str, OutcomeRecord]
    ) -> None:
        self._tell_outage(waiter)
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

    async def _fail(self, error: Exception) -> None:
        # Who comes meanwhile has found a controller that runs: nobody else would tell them.
        while left := [waiter for waiter in self._waiters if not waiter.is_served]:
            for waiter in left[:SLICE]:
                waiter.is_served = True
                waiter.inbox.put_nowait(error)
            await asyncio.sleep(0)


_tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Settings, ControllerTask]] = (
    weakref.WeakKeyDictionary()
)


def controller_task(settings: Settings) -> ControllerTask:
    """Return this event loop's controller for an environment."""
    from airflow_ephemeral_ec2.hooks.ec2 import doubt_clients, open_controller  # noqa: PLC0415 - Airflow; the CLI waits without it

    tasks = _tasks.setdefault(asyncio.get_running_loop(), {})
    if settings not in tasks:
        opener = functools.partial(open_controller, settings)
        tasks[settings] = ControllerTask(opener, settings.poll_seconds, doubt_clients)
    return tasks[settings]
