"""A trigger's own questions to AWS: asked until there is an answer, by one trigger at a time."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, TypeVar

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.triggers.outage import Outage
from airflow_ephemeral_ec2.triggers.waiting import MAX_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


async def until_answered(
    question: Callable[[], T], tell: Callable[[str], None], poll_seconds: float
) -> T:
    """
    Ask in a thread, and again after a growing pause while AWS cannot be asked or refuses.

    :param question: blocks
    :param tell: gets a line for each kind of error, and one when AWS answers again
    :raises TamperedObjectError: the answer is there, and nothing that we wrote
    """
    outage, pause = Outage(), poll_seconds
    turn: contextlib.AbstractAsyncContextManager[object] = contextlib.nullcontext()
    while True:
        try:
            async with turn:
                answer = await asyncio.to_thread(question)
        except AwsError as error:
            if not error.may_pass:
                raise
            lines = outage.note(error)
        else:
            for line in outage.end():
                tell(line)
            return answer
        for line in lines:
            tell(line)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)
        await asyncio.sleep(pause)
        # A thousand triggers that ask again must leave threads to the controller.
        turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
