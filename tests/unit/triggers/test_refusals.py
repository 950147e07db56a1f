"""AWS refuses a trigger from its first question on: it says so in the task's log and asks again."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest

from airflow_ephemeral_ec2.exceptions import AccessError, TamperedObjectError
from airflow_ephemeral_ec2.hooks import ec2
from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.triggers.asking import until_answered
from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger
from airflow_ephemeral_ec2.triggers.job import EphemeralEC2JobTrigger
from airflow_ephemeral_ec2.triggers.outage import ANSWERS_AGAIN


@pytest.fixture
def done(deployment, store, make_record):
    """An attempt that has succeeded while nobody looked."""
    record = store.write_launch(make_record())
    store.write_date_index(record)
    verdict = Verdict(Outcome.SUCCEEDED, "exit 0")
    store.write_outcome(conclude(record, verdict, Times(requested=1.0), None, {"exit_code": 0}))
    return record


@pytest.fixture
def unseen(deployment, monkeypatch):
    """The connection is not there yet; call this to let Airflow have it."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_LATER", "")
    monkeypatch.delenv("AIRFLOW_CONN_AWS_LATER")
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__AWS_CONN_ID", "aws_later")
    there = os.environ["AIRFLOW_CONN_AWS_DEFAULT"]
    monkeypatch.setattr(ec2, "_known", dict(ec2._known))
    return lambda: monkeypatch.setenv("AIRFLOW_CONN_AWS_LATER", there)


@pytest.fixture(params=["attempt", "attempt with execution_timeout", "job"])
def trigger(request, done):
    ends_at = 9e9 if request.param.endswith("timeout") else None
    if request.param == "job":
        return EphemeralEC2JobTrigger(
            done.spec.payer, done.spec.job, done.business_date, poll_seconds=0.01
        )
    return EphemeralEC2Trigger(done.jobkey, 1, "aws_default", "us-east-1", ends_at=ends_at)


def test_a_triggerer_that_has_no_connection_yet_fails_no_task(trigger, done, unseen):
    said = []
    trigger._log = SimpleNamespace(info=said.append)

    async def story():
        event = asyncio.ensure_future(anext(trigger.run()))
        async with asyncio.timeout(20):
            while not said and not event.done():
                await asyncio.sleep(0.005)
            unseen()
            return (await event).payload

    event = asyncio.run(story())

    assert (event.get("error"), event.get("jobkey")) == (None, done.jobkey)
    refused, answered = said
    assert refused.startswith("cannot ask AWS, will ask again: Airflow connection 'aws_later': is")
    assert answered == ANSWERS_AGAIN


def test_what_is_not_ours_is_no_outage():
    def question():
        raise TamperedObjectError("s3://records/x", "is not JSON.")

    with pytest.raises(TamperedObjectError):
        asyncio.run(until_answered(question, print, 0.01))


def test_of_many_who_ask_again_one_asks_at_a_time():
    """The others' threads are for the controller, which they all wait for."""
    asking, most, said = 0, [], []

    async def ask(number):
        tries = [AccessError("read", "denied.")] * 2

        def question():
            nonlocal asking
            if len(tries) == 2:
                raise tries.pop()
            asking += 1
            most.append(asking)
            time.sleep(0.0005)
            asking -= 1
            if tries:
                raise tries.pop()
            return number

        return await until_answered(question, said.append, 0.001)

    async def all_of_them():
        return await asyncio.gather(*(ask(number) for number in range(50)))

    assert asyncio.run(all_of_them()) == list(range(50))
    assert max(most) == 1
    assert sorted(set(said)) == [ANSWERS_AGAIN, "cannot ask AWS, will ask again: read: denied."]
    assert len(said) == 100
