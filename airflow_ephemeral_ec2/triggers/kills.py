"""Kills: in threads of their own, and again for some minutes when one cannot be done."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
FIRST_PAUSE_SECONDS = 1.0
"""Between the first two tries; then twice as long each time."""
MAX_PAUSE_SECONDS = 30.0
TRY_SECONDS = 600.0
"""After that the reaper has come by."""

_threads = ThreadPoolExecutor(16, thread_name_prefix="ephemeral-ec2-kill")
"""In the loop's few, kills and Airflow's log lines would wait for each other."""
_under_way: set[asyncio.Task[None]] = set()
"""Asyncio itself holds them weakly."""


def begin_kill(
    kill: Callable[[], None], again: Callable[[], None]
) -> asyncio.Future[Exception | None]:
    """
    Let a thread kill now; for as long as it raises, again after a pause that holds no thread.

    :param kill: blocks; raises when it could not be done
    :param again: the same for the later tries
    :return: done when the first try is over, with its error
    """
    context = contextvars.copy_context()
    first = _start(context, kill)
    seeing = asyncio.get_running_loop().create_task(
        _see_through(first, functools.partial(_start, context, again))
    )
    _under_way.add(seeing)
    seeing.add_done_callback(_under_way.discard)
    return first


def _start(
    context: contextvars.Context, kill: Callable[[], None]
) -> asyncio.Future[Exception | None]:
    work = functools.partial(context.run, _try, kill)
    return asyncio.get_running_loop().run_in_executor(_threads, work)


def _try(kill: Callable[[], None]) -> Exception | None:
    try:
        kill()
    except Exception as error:  # noqa: BLE001 - whatever it is, a machine lives that nobody wants
        return error
    return None


async def _see_through(
    first: asyncio.Future[Exception | None],
    start: Callable[[], asyncio.Future[Exception | None]],
) -> None:
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
    ends_at = loop.time() + TRY_SECONDS
    # A loop that ends cancels this; a try that waits for its thread is made all the same.
    error = await asyncio.shield(first)
    while error is not None:
        if loop.time() + pause > ends_at:
            log.error("cannot end the attempt; the reaper or its own limits will: %s", error)
            return
        log.warning("cannot end the attempt, will try again in %.0f s: %s", pause, error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)
        error = await asyncio.shield(start())
