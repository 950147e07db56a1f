"""A success that the triggerer ends by itself: the state, and the XCom if the task wants one."""

import asyncio
from types import SimpleNamespace

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.triggers.ec2 import EphemeralEC2Trigger


@pytest.fixture
def end_with(deployment, store, make_record):
    """Record an outcome and return the event that a trigger makes of it."""

    def end_with(outcome, **changes):
        record = store.write_launch(make_record())
        ending = conclude(record, Verdict(outcome, "as it came"), Times(requested=1.0))
        store.write_outcome(ending)
        names = (record.jobkey, record.attempt, "aws_default", "us-east-1")
        trigger = EphemeralEC2Trigger(*names, end_in_triggerer=True, **changes)
        trigger.task_instance = SimpleNamespace(task_id="claims")
        return asyncio.run(anext(trigger.run()))

    return end_with


def test_a_success_is_ended_with_its_result(end_with):
    event = end_with(Outcome.SUCCEEDED)

    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms["return_value"]["outcome"] == "succeeded"


def test_a_task_that_pushes_no_xcom_gets_none(end_with):
    event = end_with(Outcome.SUCCEEDED, push_result=False)

    assert isinstance(event, TaskSuccessEvent)
    assert not event.xcoms
