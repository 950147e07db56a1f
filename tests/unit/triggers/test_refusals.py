"""AWS refuses a trigger from its first question on: it says so in the task's log and asks again."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import conf

from airflow_ephemeral_ec2.exceptions import AccessError, SettingsError, TamperedObjectError
from airflow_ephemeral_ec2.hooks import ec2
from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.settings import settings_from_airflow
from airflow_ephemeral_ec2.triggers import asking
from airflow_ephemeral_ec2.triggers.asking import CANNOT_READ, READABLE_AGAIN, until_answered
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


def run_until_mended(trigger, mend):
    """Run a trigger, mend the connection once something was said; return the event and all lines."""
    said = []
    trigger._log = SimpleNamespace(info=said.append)

    async def story():
        event = asyncio.ensure_future(anext(trigger.run()))
        async with asyncio.timeout(20):
            while not said and not event.done():
                await asyncio.sleep(0.005)
            mend()
            return (await event).payload

    return asyncio.run(story()), said


def test_a_triggerer_that_has_no_connection_yet_fails_no_task(trigger, done, unseen):
    event, said = run_until_mended(trigger, unseen)

    assert (event.get("error"), event.get("jobkey")) == (None, done.jobkey)
    refused, answered = said
    assert refused.startswith("cannot ask AWS, will ask again: Airflow connection 'aws_later': is")
    assert answered == ANSWERS_AGAIN


BROKEN = {
    "botocore does not know the option": "aws://k:s@/?config_kwargs=%7B%22bogus%22%3A+1%7D",
    "no such way to a role": "aws://k:s@/?role_arn=arn:aws:iam::1:role/x&assume_role_method=none",
    "half an endpoint": "aws://k:s@/?endpoint_url=localhost:5000&region_name=us-east-1",
}


@pytest.mark.parametrize("uri", BROKEN.values(), ids=BROKEN)
def test_a_connection_that_nobody_can_use_fails_no_task(done, unseen, monkeypatch, uri):
    """Somebody is editing it."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_LATER", uri)
    monkeypatch.setattr(ec2, "CLIENTS_SECONDS", 0.0)
    trigger = EphemeralEC2Trigger(done.jobkey, 1, "aws_default", "us-east-1")

    event, said = run_until_mended(trigger, unseen)

    assert (event.get("error"), event.get("outcome")) == (None, "succeeded")
    refused, answered = said
    assert refused.startswith("cannot ask AWS, will ask again: use Airflow connection 'aws_later'")
    assert "bogus" not in refused
    assert answered == ANSWERS_AGAIN


def test_a_triggerer_that_cannot_read_its_settings_fails_no_task(
    trigger, done, deployment, monkeypatch
):
    """A new triggerer whose environment lacks the bucket, then has a wrong one, then the right one."""
    said = []
    trigger._log = SimpleNamespace(info=said.append)
    monkeypatch.setattr(asking, "FIRST_PAUSE_SECONDS", 0.05)
    name = "AIRFLOW__EPHEMERAL_EC2__BUCKET"
    bucket = os.environ[name]
    monkeypatch.delenv(name)

    async def until_said(count):
        while len(said) < count:
            await asyncio.sleep(0.005)

    async def story():
        event = asyncio.ensure_future(anext(trigger.run()))
        async with asyncio.timeout(30):
            await until_said(1)
            monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__POLL_INTERVAL", "often")
            await until_said(2)
            monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__POLL_INTERVAL", "0.2")
            monkeypatch.setenv(name, bucket)
            return (await event).payload

    event = asyncio.run(story())

    assert (event.get("error"), event.get("jobkey")) == (None, done.jobkey)
    assert "bucket is missing" in said[0]
    assert "poll_interval 'often'" in said[1]
    assert [line.startswith(CANNOT_READ) for line in said[:2]] == [True, True]
    assert said[2] == READABLE_AGAIN


def test_settings_that_airflow_cannot_read_are_named_without_its_words(deployment, monkeypatch):
    """A value that refers to another one that is not there; a secrets backend that is down."""
    monkeypatch.setenv("AIRFLOW__EPHEMERAL_EC2__BUCKET", "x")
    monkeypatch.delenv("AIRFLOW__EPHEMERAL_EC2__BUCKET")
    conf.read_dict({"ephemeral_ec2": {"bucket": "%(secret-word)s"}})
    try:
        with pytest.raises(SettingsError, match="bucket cannot be read") as error:
            settings_from_airflow()
    finally:
        conf.remove_option("ephemeral_ec2", "bucket")

    assert "secret-word" not in str(error.value)


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
