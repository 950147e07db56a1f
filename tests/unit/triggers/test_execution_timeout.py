"""A deferred task's ``execution_timeout``: the trigger ends the attempt, whatever Airflow does."""

import asyncio
from types import SimpleNamespace

import pytest

from airflow_ephemeral_ec2.exceptions import AccessError
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome, Verdict
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.triggers import ec2
from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger


@pytest.fixture
def record(deployment, store, make_record):
    """An attempt in the queue that waits for vCPUs which nobody has: no machine."""
    found = store.write_launch(make_record())
    store.write_entry(plan_entry(found))
    return found


async def first_event(trigger):
    return (await anext(trigger.run())).payload


def trigger_of(record, **changes):
    return EphemeralEC2Trigger(record.jobkey, record.attempt, "aws_default", "us-east-1", **changes)


@pytest.fixture
def nobody_acts(monkeypatch, store):
    """Another controller has the lease, so that this one only follows."""
    monkeypatch.setattr(
        "airflow_ephemeral_ec2.hooks.queue_ledger.QueueLedger.take_lease", lambda _: False
    )


def test_the_attempt_is_ended_when_the_time_is_over(record, store, nobody_acts):
    store.list_queue()  # the clock is set

    event = asyncio.run(first_event(trigger_of(record, ends_at=store.clock.now() + 1.0)))

    assert event == {"jobkey": record.jobkey, "attempt": 1, "timed_out": True}
    assert store.read_kill(f"{record.jobkey}-a1") == Kill("execution_timeout", by="Airflow")
    assert store.read_start_lock(record).revoked == "execution_timeout"


def test_a_refusal_at_the_deadline_is_told_once_and_the_end_is_tried_again(
    record, store, nobody_acts, monkeypatch
):
    said, tries, kill = [], [], ec2.kill_attempt

    def refused_twice(*args):
        tries.append(1)
        if len(tries) < 3:
            raise AccessError("write s3://records/x", "AWS says AccessDenied: no")
        return kill(*args)

    monkeypatch.setattr(ec2, "kill_attempt", refused_twice)
    store.list_queue()
    trigger = trigger_of(record, ends_at=store.clock.now())
    trigger._log = SimpleNamespace(
        info=lambda *_: None, warning=lambda text, *of: said.append(text % of)
    )

    assert asyncio.run(first_event(trigger))["timed_out"] is True
    assert store.read_start_lock(record).revoked == "execution_timeout"
    (line,) = said
    assert line.startswith("execution_timeout is over; cannot ask AWS, will ask again: write")


def test_a_trigger_that_comes_too_late_still_tells_what_is_over(record, store, nobody_acts):
    """The triggerer was down when the job ended, and at the deadline."""
    verdict = Verdict(Outcome.SUCCEEDED, "exit 0")
    store.write_outcome(conclude(record, verdict, Times(requested=1.0), None, {"exit_code": 0}))
    store.close_entry(f"{record.jobkey}-a1")

    event = asyncio.run(first_event(trigger_of(record, ends_at=1.0)))

    assert event["outcome"] == "succeeded"
    assert store.read_kill(f"{record.jobkey}-a1") is None


def test_a_job_that_nobody_awaits_is_not_ended(record, store, nobody_acts):
    """``wait_for_completion=False``: the task fails, the job goes on."""
    trigger = trigger_of(record, ends_at=1.0, until_launch=True, kill_on_cancel=False)

    event = asyncio.run(first_event(trigger))

    assert event["timed_out"] is True
    assert store.read_kill(f"{record.jobkey}-a1") is None
