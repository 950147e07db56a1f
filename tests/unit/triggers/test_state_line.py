"""The line that Airflow shows of a task that waits: on change, seldom, and never an error."""

import asyncio
import contextlib
import time

from airflow.providers.common.compat.sdk import XCom

from airflow_ephemeral_ec2.model.identity import TaskIdentity
from airflow_ephemeral_ec2.model.queue import PACED
from airflow_ephemeral_ec2.triggers import state_line
from airflow_ephemeral_ec2.triggers.outage import ANSWERS_AGAIN, CANNOT_ASK
from airflow_ephemeral_ec2.triggers.state_line import StateLine, write_state


class Page:
    """What was written, and how many wrote at once at most; ``seen`` is called after each line."""

    def __init__(self, error=None, seen=lambda: None):
        self.lines, self.error, self.seen = [], error, seen
        self.writing = self.at_once = 0

    def write(self, line):
        self.writing += 1
        self.at_once = max(self.at_once, self.writing)
        time.sleep(0.001)
        self.writing -= 1
        self.lines.append(line)
        self.seen()
        if self.error is not None:
            raise self.error


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def show(page, *, first=0.0, pause=0.0):
    return StateLine(page.write, first, pause)


def test_what_a_task_waits_for_is_written_when_it_changes():
    page = Page()

    async def story():
        state = show(page)
        async with state.showing():
            state.tell("queued: behind zeta/member")
            await until(lambda: len(page.lines) == 1)
            state.tell("queued: behind zeta/member")
            state.tell("queued: first in line")
            await until(lambda: len(page.lines) == 2)

    asyncio.run(story())
    assert page.lines == ["queued: behind zeta/member", "queued: first in line"]


def test_a_launch_that_waits_for_its_turn_says_so():
    page = Page()

    async def story():
        state = show(page)
        async with state.showing():
            state.tell(f"{PACED}, 900 before this one")
            await until(lambda: page.lines)

    asyncio.run(story())
    assert page.lines == [f"{PACED}, 900 before this one"]


def test_an_outage_is_shown_until_it_is_over_and_then_what_was_waited_for():
    page = Page()

    async def story():
        state = show(page)
        async with state.showing():
            for number, line in enumerate(
                ("queued: first in line", f"{CANNOT_ASK}x", ANSWERS_AGAIN)
            ):
                state.tell(line)
                await until(lambda number=number: len(page.lines) == number + 1)

    asyncio.run(story())
    assert page.lines == ["queued: first in line", f"{CANNOT_ASK}x", "queued: first in line"]


def test_what_happens_while_the_first_line_is_written_is_shown_too():
    page, told = Page(), []

    async def story():
        state = show(page)

        def launch():
            if not told:
                state.tell("launched i-1")
                told.append(True)

        page.seen = launch
        async with state.showing():
            state.tell("queued: first in line")
            await until(lambda: told)

    asyncio.run(story())
    assert page.lines == ["queued: first in line", "launched i-1"]


def test_many_changes_are_one_line_until_the_pause_is_over():
    page = Page()

    async def story():
        state = show(page, pause=3_600)
        async with state.showing():
            state.tell("queued: 0")
            await until(lambda: page.lines)
            for number in range(100):
                state.tell(f"queued: {number}")
                await asyncio.sleep(0)

    asyncio.run(story())
    assert page.lines == ["queued: 0", "queued: 99"]


def test_a_task_that_does_not_wait_for_long_is_not_written():
    page = Page()

    async def story():
        state = show(page, first=3_600)
        async with state.showing():
            state.tell("queued: first in line")
            state.tell("admitted, launched i-1")

    asyncio.run(story())
    assert page.lines == []


def test_a_task_that_never_waits_is_not_written():
    page = Page()

    async def story():
        state = show(page)
        async with state.showing():
            state.tell("admitted, launched i-1")
            await asyncio.sleep(0.02)

    asyncio.run(story())
    assert page.lines == []


def test_who_was_shown_to_wait_is_shown_to_wait_no_longer():
    page = Page()

    async def story():
        state = show(page, pause=3_600)
        async with state.showing():
            state.tell("queued: first in line")
            await until(lambda: page.lines)
            state.tell("admitted, launched i-1")

    asyncio.run(story())
    assert page.lines == ["queued: first in line", "admitted, launched i-1"]


def test_an_error_fails_no_task_and_the_next_change_is_tried():
    page = Page(RuntimeError("the API server is away"))

    async def story():
        state = show(page)
        async with state.showing():
            state.tell("queued: 1")
            await until(lambda: len(page.lines) == 1)
            state.tell("queued: 2")
            await until(lambda: len(page.lines) == 2)
        return "goes on"

    assert asyncio.run(story()) == "goes on"


def test_many_tasks_write_one_after_another():
    async def all_of_them():
        loop, is_complete = asyncio.get_running_loop(), asyncio.Event()

        def seen():
            if len(page.lines) == 200:
                loop.call_soon_threadsafe(is_complete.set)

        async def one(number):
            state = show(page)
            async with state.showing():
                state.tell(f"queued: {number}")
                await is_complete.wait()

        page = Page(seen=seen)
        async with asyncio.timeout(30):
            await asyncio.gather(*map(one, range(200)))
        return page

    page = asyncio.run(all_of_them())
    assert page.at_once == 1
    assert sorted(page.lines) == sorted(f"queued: {number}" for number in range(200))


def test_a_cancelled_trigger_writes_nothing_more():
    page = Page()

    async def story():
        state = show(page, pause=3_600)
        with contextlib.suppress(asyncio.CancelledError):
            async with state.showing():
                state.tell("queued: 1")
                await until(lambda: page.lines)
                state.tell("queued: 2")
                raise asyncio.CancelledError
        await asyncio.sleep(0.01)

    asyncio.run(story())
    assert page.lines == ["queued: 1"]


def test_the_line_is_the_task_instances_xcom(monkeypatch):
    given = {}
    monkeypatch.setattr(XCom, "set", lambda **arguments: given.update(arguments))

    write_state(TaskIdentity("d", "r", "t", 3), "queued: first in line")

    assert given == {
        "key": state_line.STATE_KEY, "value": "queued: first in line",
        "dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 3,
    }  # fmt: skip
