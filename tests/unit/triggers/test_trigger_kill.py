"""What a cancelled trigger does to its attempt, by what Airflow and the bucket say."""

import asyncio
import threading

import pytest

from airflow_ephemeral_ec2.exceptions import AwsUnavailableError
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.triggers import ec2, kills
from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger
from airflow_ephemeral_ec2.triggers.pulse import Pulse

IDENTITY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}


@pytest.fixture
def record(deployment, store, make_record):
    found = store.write_launch(make_record())
    store.write_entry(plan_entry(found))
    return found


@pytest.fixture
def cancelled(record, monkeypatch):
    """Cancel the attempt's trigger while Airflow says this of its task."""

    def cancel(state, **changes):
        def read(identity):
            if isinstance(state, Exception):
                raise state
            return state

        monkeypatch.setattr(ec2, "read_task_state", read)
        trigger = EphemeralEC2Trigger(
            record.jobkey, 1, "aws_default", "us-east-1", identity=IDENTITY, **changes
        )
        asyncio.run(trigger.on_kill())

    return cancel


@pytest.mark.parametrize("state", ["failed", "success", "removed", "none", "scheduled"])
def test_who_was_marked_cleared_or_deleted_is_killed(cancelled, record, store, state):
    cancelled(state)

    kill = store.read_kill(f"{record.jobkey}-a1")
    assert (kill.reason, kill.by) == ("cancelled", f"Airflow (task {state})")
    assert store.read_start_lock(record).revoked == "cancelled"


@pytest.mark.parametrize("state", ["deferred", "up_for_retry", RuntimeError("API server is down")])
def test_who_still_waits_or_is_unknown_lives(cancelled, record, store, state):
    cancelled(state)

    assert store.read_kill(f"{record.jobkey}-a1") is None


def test_who_was_replaced_by_a_later_attempt_is_killed_though_the_task_is_deferred(
    cancelled, record, store, make_record
):
    """The task was cleared, and waits for its next attempt already."""
    store.write_launch(make_record(attempt=2, supersedes=1, epoch="e2"))

    cancelled("deferred")

    assert store.read_kill(f"{record.jobkey}-a1") is not None


def test_a_job_that_nobody_awaits_lives(cancelled, record, store):
    cancelled("failed", kill_on_cancel=False)

    assert store.read_kill(f"{record.jobkey}-a1") is None


@pytest.fixture
def busy():
    """No thread is left for a kill until this is set."""
    free = threading.Event()
    waiting = [kills._threads.submit(free.wait, 30) for _ in range(kills._threads._max_workers)]
    yield free
    free.set()
    for one in waiting:
        one.result(30)


async def until_killed():
    async with asyncio.timeout(30):
        while kills._under_way:
            await asyncio.sleep(0.01)


def test_a_kill_that_waits_for_a_thread_survives_a_second_cancellation(
    record, store, monkeypatch, busy
):
    """Twenty tasks are marked at once; Airflow cancels ``on_kill`` itself a second later."""
    monkeypatch.setattr(ec2, "read_task_state", lambda identity: "failed")
    trigger = EphemeralEC2Trigger(record.jobkey, 1, "aws_default", "us-east-1", identity=IDENTITY)

    async def cancel_twice():
        killing = asyncio.ensure_future(trigger.on_kill())
        await asyncio.sleep(0.05)
        killing.cancel()
        await asyncio.wait([killing])
        busy.set()
        await until_killed()

    asyncio.run(cancel_twice())

    assert store.read_kill(f"{record.jobkey}-a1") is not None


class EndlessQueue:
    """Whoever waits here waits until somebody cancels it."""

    def __init__(self):
        self.has_waiter = asyncio.Event()

    async def wait(self, *_, **__):
        self.has_waiter.set()
        await asyncio.Event().wait()


def cancel_run(monkeypatch, trigger, *message):
    """Cancel a trigger while it waits, as Airflow does it, and do no more."""

    async def story():
        queue = EndlessQueue()
        monkeypatch.setattr(ec2, "controller_task", lambda settings: queue)
        running = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.wait_for(queue.has_waiter.wait(), 30)
        running.cancel(*message)
        await asyncio.wait([running])
        assert running.cancelled()
        await until_killed()

    asyncio.run(story())


@pytest.mark.skipif(not ec2.HAS_ON_KILL, reason="before, every cancellation asks")
@pytest.mark.parametrize(("message", "is_killed"), [((ec2.USER_ACTION,), True), ((), False)])
def test_a_user_s_action_kills_though_airflow_never_comes_to_call_on_kill(
    record, store, monkeypatch, message, is_killed
):
    """A log line stands between the cancellation and ``on_kill``, and may be cancelled, too."""
    monkeypatch.setattr(ec2, "read_task_state", lambda identity: "failed")
    trigger = EphemeralEC2Trigger(record.jobkey, 1, "aws_default", "us-east-1", identity=IDENTITY)

    cancel_run(monkeypatch, trigger, *message)

    assert (store.read_kill(f"{record.jobkey}-a1") is not None) == is_killed


@pytest.mark.skipif(not ec2.HAS_ON_KILL, reason="Airflow >= 3.3")
def test_a_user_s_action_is_told_by_airflow_s_own_word():
    from airflow.jobs import triggerer_job_runner  # noqa: PLC0415

    assert triggerer_job_runner._USER_ACTION_CANCEL_MSG == ec2.USER_ACTION


def test_a_kill_is_done_once_however_often_it_is_told(record, store, monkeypatch):
    asked = []
    monkeypatch.setattr(ec2, "read_task_state", lambda identity: asked.append(1) or "failed")
    trigger = EphemeralEC2Trigger(record.jobkey, 1, "aws_default", "us-east-1", identity=IDENTITY)

    async def tell_twice():
        await asyncio.gather(trigger.on_kill(), trigger.on_kill())

    asyncio.run(tell_twice())

    assert len(asked) == 1


@pytest.fixture
def outage(monkeypatch):
    """S3 does not answer the first two kills; a state in the list is what Airflow says of each try."""
    monkeypatch.setattr(kills, "FIRST_PAUSE_SECONDS", 0.001)
    open_store, left = ec2.open_store, [1, 1]

    def unavailable(settings):
        if left:
            left.pop()
            raise AwsUnavailableError("read s3://records/x", "AWS says SlowDown: reduce your rate")
        return open_store(settings)

    monkeypatch.setattr(ec2, "open_store", unavailable)


def play(monkeypatch, record, *states):
    """Kill the attempt's trigger while Airflow says these, one after another, of its task."""
    left = list(states)

    def read(identity):
        state = left.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    monkeypatch.setattr(ec2, "read_task_state", read)
    trigger = EphemeralEC2Trigger(record.jobkey, 1, "aws_default", "us-east-1", identity=IDENTITY)

    async def story():
        await trigger.on_kill()
        await until_killed()

    asyncio.run(story())
    assert left == []


def test_a_kill_that_s3_does_not_take_is_done_when_it_answers(record, store, monkeypatch, outage):
    play(monkeypatch, record, "failed", RuntimeError("API server is down"), "failed", "failed")

    assert store.read_kill(f"{record.jobkey}-a1") is not None


def test_a_task_that_waits_again_when_s3_answers_keeps_its_job(record, store, monkeypatch, outage):
    play(monkeypatch, record, "failed", "failed", "deferred")

    assert store.read_kill(f"{record.jobkey}-a1") is None


def test_kills_that_are_tried_again_hold_no_thread(monkeypatch):
    def fail():
        raise AwsUnavailableError("read", "timeout")

    async def story():
        tries = [kills.begin_kill(fail, fail) for _ in range(2 * kills._threads._max_workers)]
        await asyncio.gather(*tries)
        async with asyncio.timeout(10):
            assert await kills.begin_kill(lambda: None, fail) is None

    monkeypatch.setattr(kills, "FIRST_PAUSE_SECONDS", 20.0)
    asyncio.run(story())


def test_a_kill_that_never_can_be_done_is_left_to_the_reaper(monkeypatch, caplog):
    monkeypatch.setattr(kills, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(kills, "TRY_SECONDS", 0.005)

    def fail():
        raise AwsUnavailableError("read", "timeout")

    async def story():
        await kills.begin_kill(fail, fail)
        await until_killed()

    asyncio.run(story())

    assert "the reaper or its own limits will: read: timeout" in caplog.text


def test_a_later_try_of_a_triggerer_that_has_stalled_leaves_what_a_retry_may_adopt(
    record, store, monkeypatch, outage
):
    """Another one may have gone on with the trigger meanwhile."""
    monkeypatch.setattr(Pulse, "is_in_doubt", lambda _: True)

    play(monkeypatch, record, "running", "running", "running")

    assert store.read_kill(f"{record.jobkey}-a1") is None
