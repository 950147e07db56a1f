"""One controller serves all who wait, in a loop or on a worker."""

import asyncio
import gc
import time

import pytest

from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.garbage import LEAST_WAITING
from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.triggers.waiting import ControllerTask, wait_in_this_thread


class ScriptedController:
    """Gives one answer per pass; an exception in the script is raised."""

    def __init__(self, *passes):
        self.passes = list(passes)
        self.asked = []
        self.stories = {}
        self.machines = {}
        self.tampered = {}
        self.released = 0
        self.has_work = self.has_launches = False
        self.awaited = 0

    def follow(self, names):
        self.asked.append(tuple(names))
        answer = self.passes.pop(0) if self.passes else {}
        if isinstance(answer, Exception):
            raise answer
        return answer

    def expects_end(self, within):
        return False

    def story_of(self, name):
        return tuple(self.stories.get(name, ()))

    def machine_of(self, name):
        return self.machines.get(name)

    def tampering_with(self, name):
        return self.tampered.get(name)

    def forget(self, name):
        self.stories.pop(name, None)

    def release(self):
        self.released += 1


@pytest.fixture
def outcome(make_record):
    return conclude(make_record(), Verdict(Outcome.SUCCEEDED, "exit 0"), Times(requested=0.0))


def test_all_who_wait_are_served_by_one_pass(outcome):
    controller = ScriptedController({}, {"a": outcome, "b": outcome})

    async def both():
        task = ControllerTask(lambda: controller, 0.01)
        said = []
        return await asyncio.gather(task.wait("a", said.append), task.wait("b", said.append))

    first, second = asyncio.run(both())

    assert first.outcome is second.outcome is outcome
    assert len(controller.asked) <= 3


def test_a_thousand_who_wait_are_set_aside_from_collections_until_they_are_over(outcome):
    gc.unfreeze()
    names = [str(number) for number in range(LEAST_WAITING)]
    controller = ScriptedController({}, dict.fromkeys(names, outcome))
    frozen = []
    follow, controller.follow = controller.follow, lambda asked: (
        frozen.append(gc.get_freeze_count()), follow(asked)
    )[1]  # fmt: skip

    async def all_of_them():
        task = ControllerTask(lambda: controller, 0.01)
        await asyncio.gather(*(task.wait(name, print) for name in names))
        async with asyncio.timeout(30):
            while not controller.released:
                await asyncio.sleep(0)

    asyncio.run(all_of_them())

    assert frozen[-1] > 0
    assert gc.get_freeze_count() == 0


def test_each_line_of_the_story_is_told_once(outcome):
    controller = ScriptedController({}, {}, {"a": outcome})
    controller.stories["a"] = ["queued", "launched"]
    said = []

    async def wait():
        await ControllerTask(lambda: controller, 0.01).wait("a", said.append)

    asyncio.run(wait())

    assert said == ["queued", "launched"]


def test_the_lease_is_given_back_when_nobody_waits(outcome):
    controller = ScriptedController({"a": outcome})

    async def wait():
        task = ControllerTask(lambda: controller, 0.01)
        await task.wait("a", print)
        async with asyncio.timeout(5):
            while not controller.released:
                await asyncio.sleep(0.005)

    asyncio.run(wait())

    assert controller.released == 1


def test_machines_that_nobody_awaits_are_still_watched(outcome):
    controller = ScriptedController({"a": outcome}, {}, {})
    controller.has_work = True

    async def wait():
        task = ControllerTask(lambda: controller, 0.01)
        await task.wait("a", print)
        async with asyncio.timeout(5):
            while len(controller.asked) < 3:
                await asyncio.sleep(0.005)
        controller.has_work = False
        async with asyncio.timeout(5):
            while not controller.released:
                await asyncio.sleep(0.005)

    asyncio.run(wait())

    assert controller.asked[-1] == ()


def test_O3_L36_aws_that_cannot_be_asked_now_is_asked_again(outcome):
    """AWS does not answer for a while."""
    controller = ScriptedController(AwsUnavailableError("list", "timeout"), {"a": outcome})
    said = []

    async def wait():
        return await ControllerTask(lambda: controller, 0.01).wait("a", said.append)

    assert asyncio.run(wait()).outcome is outcome
    assert said == ["cannot ask AWS, will ask again: list: timeout"]


def test_a_refusal_from_the_start_is_told_to_all_who_wait():
    controller = ScriptedController(AccessError("list", "AWS says AccessDenied."))

    async def wait():
        await ControllerTask(lambda: controller, 0.01).wait("a", print)

    with pytest.raises(AccessError, match="AccessDenied"):
        asyncio.run(wait())


def test_a_refusal_in_the_middle_does_not_lose_a_running_machine(outcome):
    controller = ScriptedController({}, AccessError("describe", "denied."), {"a": outcome})

    async def wait():
        return await ControllerTask(lambda: controller, 0.01).wait("a", lambda line: None)

    assert asyncio.run(wait()).outcome is outcome


def test_a_fault_of_our_own_reaches_those_who_wait():
    controller = ScriptedController(RuntimeError("bug"))

    async def wait():
        with pytest.raises(RuntimeError, match="bug"):
            await ControllerTask(lambda: controller, 0.01).wait("a", print)

    asyncio.run(wait())


def test_waiting_for_the_launch_ends_with_the_machine():
    controller = ScriptedController({}, {})
    controller.machines["a"] = "i-1"

    async def wait():
        return await ControllerTask(lambda: controller, 0.01).wait("a", print, until_launch=True)

    ending = asyncio.run(wait())

    assert (ending.outcome, ending.instance_id) == (None, "i-1")


def test_a_worker_runs_the_same_controller(outcome):
    controller = ScriptedController({}, AwsUnavailableError("list", "timeout"), {"a": outcome})
    slept = []

    ending = wait_in_this_thread(controller, "a", print, poll_seconds=1.0, sleep=slept.append)

    assert ending.outcome is outcome
    assert slept == [1.0, 2.0]
    assert controller.released == 1


def test_a_worker_hears_a_refusal_from_the_start():
    controller = ScriptedController(AccessError("list", "denied."))

    with pytest.raises(AccessError):
        wait_in_this_thread(controller, "a", print, poll_seconds=1.0, sleep=lambda _: None)


def test_who_comes_while_the_lease_is_given_back_is_served(outcome):
    controller = ScriptedController({"a": outcome}, {"b": outcome})
    late = []

    async def wait():
        task = ControllerTask(lambda: controller, 0.01)
        loop = asyncio.get_running_loop()
        release = controller.release

        def slow_release():
            if not late:
                late.append(asyncio.run_coroutine_threadsafe(task.wait("b", print), loop))
                while not task._waiters:
                    time.sleep(0.001)
            release()

        controller.release = slow_release
        await task.wait("a", print)
        async with asyncio.timeout(5):
            while not late:
                await asyncio.sleep(0.005)
            return await asyncio.wrap_future(late[0])

    assert asyncio.run(wait()).outcome is outcome


def test_a_loop_that_ends_gives_the_lease_back():
    controller = ScriptedController()
    controller.has_work = True

    async def wait():
        task = asyncio.create_task(ControllerTask(lambda: controller, 0.01).wait("a", print))
        async with asyncio.timeout(5):
            while not controller.asked:
                await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(wait())

    assert controller.released == 1
