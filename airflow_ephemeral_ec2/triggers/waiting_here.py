"""The same controller, run by the one who waits: a worker that does not defer, a command line."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import AwsError
from airflow_ephemeral_ec2.triggers.outage import Outage
from airflow_ephemeral_ec2.triggers.waiting import MAX_PAUSE_SECONDS, read_ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.hooks.controller import Controller
    from airflow_ephemeral_ec2.triggers.waiting import Ending


def wait_in_this_thread(
    controller: Controller,
    name: str,
    tell: Callable[[str], None],
    *,
    poll_seconds: float,
    until_launch: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    keep_asking: bool = True,
) -> Ending:
    """
    Run the same controller on a worker until the attempt is where it should be.

    :param keep_asking: also when AWS refuses from the start: a policy may be being edited, while the
        machine of an attempt that was adopted runs
    :raises AwsError: AWS refuses from the start, and nobody wanted to keep asking
    """
    told, pause, outage = 0, poll_seconds, Outage()
    while True:
        try:
            ended = controller.follow((name,))
            lines, pause, keep_asking = outage.end(), poll_seconds, True
        except AwsError as error:
            if not (error.retryable or keep_asking):
                raise
            lines, ended, pause = outage.note(error), {}, min(pause * 2, MAX_PAUSE_SECONDS)
        story = controller.story_of(name)
        for line in (*lines, *story[told:]):
            tell(line)
        told = len(story)
        tampering = controller.tampering_with(name)
        ending = read_ending(controller, ended, name, until_launch=until_launch)
        if ending is not None or tampering is not None:
            # A lease that cannot be given back ends by itself.
            with contextlib.suppress(AwsError):
                controller.release()
        if tampering is not None:
            raise tampering
        if ending is not None:
            return ending
        sleep(pause)
