"""A trigger's own questions to AWS and Airflow: asked until there is an answer."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, TypeVar

from airflow_ephemeral_ec2.exceptions import AwsError, SettingsError
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers.outage import Outage
from airflow_ephemeral_ec2.triggers.waiting import MAX_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.settings import Settings

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 1.0
CANNOT_READ = "cannot read the triggerer's settings, will look again: "
READABLE_AGAIN = "the settings can be read again"
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


async def until_readable(tell: Callable[[str], None]) -> Settings:
    """
    Read the settings, and again after a growing pause while they are missing, wrong or unreadable.

    The worker has had them: what keeps the triggerer from it is no reason to fail a task that waits.

    :param tell: gets a line whenever the reason changes, and one when they can be read again
    """
    told, pause = "", FIRST_PAUSE_SECONDS
    while True:
        try:
            settings = await asyncio.to_thread(settings_from_airflow)
        except SettingsError as error:
            if told != str(error):
                told = str(error)
                tell(f"{CANNOT_READ}{error}")
        else:
            if told:
                tell(READABLE_AGAIN)
            return settings
        await asyncio.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


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
