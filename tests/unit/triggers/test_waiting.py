"""One controller serves all who wait, in a loop or on a worker."""

import asyncio
import collections
import gc
import threading
import time

import pytest

from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.garbage import LEAST_WAITING
from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.triggers import waiting
from airflow_ephemeral_ec2.triggers.outage import ANSWERS_AGAIN
from airflow_ephemeral_ec2.triggers.waiting import SLICE, ControllerTask
from airflow_ephemeral_ec2.triggers.waiting_here import wait_in_this_thread


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

    def close(self):
        pass

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


def test_a_triggerer_without_the_lease_says_that_it_is_too_small(outcome, monkeypatch, caplog):
    """It remembers no attempt of its own; three tasks wait in it all the same."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__CAPACITY", "3")
    controller = ScriptedController({}, dict.fromkeys("abc", outcome))

    async def all_of_them():
        task = ControllerTask(lambda: controller, 0.01)
        await asyncio.gather(*(task.wait(name, print) for name in "abc"))

    asyncio.run(all_of_them())

    assert "3 tasks wait here and a triggerer takes 3" in caplog.text


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


def follow_one(controller, poll_seconds=0.01):
    """Let one task wait for the attempt "a"; return its ending and what it was told."""
    said = []

    async def wait():
        return await ControllerTask(lambda: controller, poll_seconds).wait("a", said.append)

    return asyncio.run(wait()), said


DENIED = AccessError("list", "AWS says AccessDenied: no s3:ListBucket")


def test_O3_L36_aws_that_cannot_be_asked_now_is_asked_again(outcome):
    """AWS does not answer for a while."""
    controller = ScriptedController(AwsUnavailableError("list", "timeout"), {"a": outcome})

    ending, said = follow_one(controller)

    assert ending.outcome is outcome
    assert said == ["cannot ask AWS, will ask again: list: timeout", ANSWERS_AGAIN]


@pytest.mark.parametrize("before", [(), ({},)], ids=["from the start", "in the middle"])
def test_a_refusal_is_told_and_fails_no_task(outcome, before):
    """Nobody is killed by it: the machines of those who wait run on."""
    controller = ScriptedController(*before, DENIED, {"a": outcome})

    ending, said = follow_one(controller)

    assert ending.outcome is outcome
    assert said == [f"cannot ask AWS, will ask again: {DENIED}", ANSWERS_AGAIN]


def test_a_connection_that_is_not_there_yet_is_waited_for(outcome):
    """A triggerer that has just started: its metadata service or its API server is slow."""
    tries, said = [DENIED], []

    def open_controller():
        if tries:
            raise tries.pop()
        return ScriptedController({"a": outcome})

    async def wait():
        return await ControllerTask(open_controller, 0.01).wait("a", said.append)

    assert asyncio.run(wait()).outcome is outcome
    assert said == [f"cannot ask AWS, will ask again: {DENIED}", ANSWERS_AGAIN]


def test_nobody_looks_for_a_connection_that_nobody_waits_for():
    tries = []

    def open_controller():
        tries.append(1)
        raise DENIED

    async def wait():
        task = ControllerTask(open_controller, 0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task.wait("a", print), 0.1)
        async with asyncio.timeout(5):
            while not task._task.done():
                await asyncio.sleep(0.005)
        tries_before = len(tries)
        said = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task.wait("b", lambda line: said.append(len(tries))), 0.1)
        assert min(said) > tries_before

    asyncio.run(wait())


def test_a_refusal_has_the_connection_looked_up_again_and_an_outage_has_not(outcome):
    silent = AwsUnavailableError("list", "timeout")
    controller, doubts = ScriptedController(DENIED, silent, DENIED, {"a": outcome}), []

    async def wait():
        task = ControllerTask(
            lambda: controller, 0.001, lambda: doubts.append(len(controller.asked))
        )
        await task.wait("a", print)

    asyncio.run(wait())

    assert doubts == [1, 3]


def test_an_outage_is_told_once_for_each_kind_of_error_and_so_is_its_end(outcome):
    busy = [AwsUnavailableError(f"read {key}", f"AWS says SlowDown: {key}") for key in "abc"]
    controller = ScriptedController(*busy, DENIED, busy[0], DENIED, {}, busy[1], {"a": outcome})

    _, said = follow_one(controller, poll_seconds=0.001)

    assert said == [
        f"cannot ask AWS, will ask again: {busy[0]}",
        f"cannot ask AWS, will ask again: {DENIED}",
        ANSWERS_AGAIN,
        f"cannot ask AWS, will ask again: {busy[1]}",
        ANSWERS_AGAIN,
    ]


def test_who_comes_during_an_outage_hears_of_it_before_the_next_pass(outcome):
    controller, gate = ScriptedController(DENIED, {"b": outcome}), threading.Event()
    follow, said = controller.follow, []

    def slow_follow(names):
        if controller.asked:
            assert gate.wait(5)
        return follow(names)

    controller.follow = slow_follow

    def tell(line):
        said.append(line)
        gate.set()

    async def wait():
        task = ControllerTask(lambda: controller, 0.01)
        has_heard = asyncio.Event()
        first = asyncio.ensure_future(task.wait("a", lambda _: has_heard.set()))
        await has_heard.wait()
        await task.wait("b", tell)
        first.cancel()

    asyncio.run(wait())

    assert said == [f"cannot ask AWS, will ask again: {DENIED}", ANSWERS_AGAIN]


@pytest.mark.parametrize("is_out", [False, True], ids=["a line of the story", "an outage"])
def test_ten_thousand_are_served_some_at_a_time(outcome, is_out):
    """Each of them wakes up and logs; whatever else the loop runs gets its turn in between."""
    names = [str(number) for number in range(10_000)]
    first = DENIED if is_out else {}
    controller = ScriptedController(first, dict.fromkeys(names, outcome))
    controller.stories = {name: ["queued"] for name in names}
    turn, told, ended = 0, collections.Counter(), collections.Counter()

    async def count_turns():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def wait(task, name):
        await task.wait(name, lambda _: told.update([turn]))
        ended.update([turn])

    async def all_of_them():
        task, counting = (
            ControllerTask(lambda: controller, 0.01),
            asyncio.ensure_future(count_turns()),
        )
        await asyncio.gather(*(wait(task, name) for name in names))
        counting.cancel()

    asyncio.run(all_of_them())

    assert ended.total() == len(names)
    assert max(ended.values()) <= SLICE
    assert max(told.values()) <= 3 * SLICE


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


@pytest.mark.parametrize(
    ("is_expected", "seconds"), [(False, [3.6] * 5), (True, [1.8] * 3 + [3.6] * 2)]
)
def test_passes_are_spread_and_a_few_come_sooner_where_an_end_is_expected(
    outcome, monkeypatch, is_expected, seconds
):
    controller = ScriptedController(*[{}] * 5, {"a": outcome})
    controller.expects_end = lambda within: is_expected
    paused = []

    async def pause(_task, _controller, seconds):
        paused.append(seconds)

    monkeypatch.setattr(ControllerTask, "_pause", pause)
    monkeypatch.setattr(waiting.random, "random", lambda: 0.0)

    asyncio.run(ControllerTask(lambda: controller, 4.0).wait("a", print))

    assert paused[:5] == pytest.approx(seconds)


def test_launches_go_on_between_two_passes(outcome, monkeypatch):
    monkeypatch.setattr(waiting, "LAUNCH_SECONDS", 0.01)
    controller, launched = ScriptedController({}, {"a": outcome}), []
    controller.has_launches = True

    def launch():
        launched.append(len(controller.asked))
        controller.has_launches = len(launched) < 3

    controller.launch = launch

    asyncio.run(ControllerTask(lambda: controller, 1.0).wait("a", print))

    assert launched == [1, 1, 1]


def test_a_worker_runs_the_same_controller(outcome):
    controller = ScriptedController({}, AwsUnavailableError("list", "timeout"), {"a": outcome})
    slept = []

    ending = wait_in_this_thread(controller, "a", print, poll_seconds=1.0, sleep=slept.append)

    assert ending.outcome is outcome
    assert slept == [1.0, 2.0]
    assert controller.released == 1


def test_who_sits_before_the_terminal_hears_a_refusal_from_the_start():
    controller = ScriptedController(DENIED)

    with pytest.raises(AccessError):
        wait_in_this_thread(controller, "a", print, poll_seconds=1.0, keep_asking=False)


def test_a_refusal_from_the_start_fails_no_task_on_a_worker(outcome):
    controller, said = ScriptedController(DENIED, DENIED, {"a": outcome}), []

    ending = wait_in_this_thread(
        controller, "a", said.append, poll_seconds=1.0, sleep=lambda _: None
    )

    assert ending.outcome is outcome
    assert said == [f"cannot ask AWS, will ask again: {DENIED}", ANSWERS_AGAIN]


def test_a_worker_that_cannot_give_the_lease_back_has_its_ending_all_the_same(outcome):
    controller = ScriptedController({"a": outcome})

    def release():
        raise AwsUnavailableError("write", "timeout")

    controller.release = release

    ending = wait_in_this_thread(controller, "a", print, poll_seconds=1.0)

    assert ending.outcome is outcome


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


class SlowController(ScriptedController):
    """A pass of it takes until somebody lets it end; notes what is done meanwhile, and where."""

    def __init__(self):
        super().__init__()
        self.has_work = True
        self.is_passing, self.may_end = threading.Event(), threading.Event()
        self.done = []

    def note(self, what):
        is_on_loop = threading.current_thread() is threading.main_thread()
        self.done.append((what, "loop" if is_on_loop else "thread"))

    def follow(self, names):
        self.is_passing.set()
        assert self.may_end.wait(30)
        self.note("passed")
        return {}

    def close(self):
        self.note("closed")
        self.may_end.set()

    def release(self):
        self.note("released")
        super().release()


async def end_in_a_pass(controller):
    task = asyncio.create_task(ControllerTask(lambda: controller, 0.01).wait("a", print))
    assert await asyncio.to_thread(controller.is_passing.wait, 30)
    task.cancel()


def test_a_loop_that_ends_gives_the_lease_back_when_its_pass_is_over():
    """A pass may end in taking the lease: what is given back before that is taken again."""
    controller = SlowController()

    asyncio.run(end_in_a_pass(controller))

    assert controller.done == [("closed", "loop"), ("passed", "thread"), ("released", "thread")]


def test_a_pass_that_does_not_end_keeps_the_lease(monkeypatch):
    """It may be about to launch: whoever comes next waits until the lease has run out."""
    monkeypatch.setattr(waiting, "CLOSE_SECONDS", 0.01)
    controller = SlowController()
    controller.close = lambda: controller.note("closed")
    threading.Timer(0.3, controller.may_end.set).start()

    asyncio.run(end_in_a_pass(controller))

    assert controller.done == [("closed", "loop"), ("passed", "thread")]


def test_a_lease_that_cannot_be_given_back_fails_nobody_who_comes_meanwhile(outcome):
    controller = ScriptedController({"a": outcome}, {"b": outcome})

    async def wait():
        task = ControllerTask(lambda: controller, 0.01)
        loop, late = asyncio.get_running_loop(), []

        def release():
            if not late:
                late.append(asyncio.run_coroutine_threadsafe(task.wait("b", print), loop))
                while not task._waiters:
                    time.sleep(0.001)
            raise AwsUnavailableError("write", "timeout")

        controller.release = release
        await task.wait("a", print)
        async with asyncio.timeout(5):
            while not late:
                await asyncio.sleep(0.005)
            return await asyncio.wrap_future(late[0])

    assert asyncio.run(wait()).outcome is outcome
