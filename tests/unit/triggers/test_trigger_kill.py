"""What a cancelled trigger does to its attempt, by what Airflow and the bucket say."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.triggers import ec2
from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger

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


def test_a_kill_that_waits_for_a_thread_survives_a_second_cancellation(record, store, monkeypatch):
    """Twenty tasks are marked at once; Airflow cancels ``on_kill`` itself a second later."""
    monkeypatch.setattr(ec2, "read_task_state", lambda identity: "failed")
    trigger = EphemeralEC2Trigger(record.jobkey, 1, "aws_default", "us-east-1", identity=IDENTITY)
    free = threading.Event()

    async def cancel_twice():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        busy = asyncio.ensure_future(asyncio.to_thread(free.wait, 30))
        await asyncio.sleep(0.05)
        killing = asyncio.ensure_future(trigger.on_kill())
        await asyncio.sleep(0.05)
        killing.cancel()
        await asyncio.wait([killing])
        free.set()
        await busy
        while ec2._kills:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(cancel_twice(), 30))

    assert store.read_kill(f"{record.jobkey}-a1") is not None
