"""A success whose input was written again after it: the sensor says so, waits or fails."""

import asyncio
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_ephemeral_ec2.hooks.order_book import OrderBook
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.order import DatedKey
from airflow_ephemeral_ec2.model.outcome import Outcome, Verdict
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.sensors.ec2 import EphemeralEC2Sensor
from airflow_ephemeral_ec2.triggers.job import EphemeralEC2JobTrigger

CLAIMS, OTHER, MEMBER = "a" * 40, "b" * 40, "c" * 40
KEY = DatedKey("acme", "claims", "2026-03-01")


@pytest.fixture(autouse=True)
def _deployment(deployment):
    pass


@pytest.fixture
def run(store, make_record):
    """Let an attempt of claims end at once."""

    def run(outcome=Outcome.SUCCEEDED, *, jobkey=CLAIMS, attempt=1, requested=1.0, **changes):
        made = make_record(jobkey=jobkey, attempt=attempt, job="claims", **changes)
        record = store.write_launch(made.model_copy(update={"requested_at": requested}))
        store.write_date_index(record)
        times = Times(requested=requested)
        return store.write_outcome(conclude(record, Verdict(outcome, "as it came"), times))

    return run


@pytest.fixture
def rerun_member(store, make_record):
    """Mark what was made of older members, as the controller does when member succeeds again."""

    def rerun():
        record = make_record(jobkey=MEMBER, attempt=2, job="member")
        entry = plan_entry(record.model_copy(update={"dependents": ("claims",)}))
        OrderBook(store, one_by_one).mark_stale(entry, (), None)

    return rerun


def make_sensor(stale="warn", **changes):
    arguments = {"payer": "acme", "job": "claims", "stale": stale} | changes
    return EphemeralEC2Sensor(task_id="wait", **arguments)


@pytest.fixture
def warned(monkeypatch):
    """What the sensor's task log is warned of."""
    lines = []
    log = SimpleNamespace(
        info=lambda *_: None, warning=lambda text, *words: lines.append(text % words)
    )
    monkeypatch.setattr(EphemeralEC2Sensor, "log", log)
    return lines


@pytest.fixture(params=["resumed", "poked"])
def ending(request, make_context):
    """End a sensor's task, deferred or on a worker; None: it goes on waiting."""

    def end(sensor, attempt=1, jobkey=CLAIMS):
        if request.param == "poked":
            return sensor.poke(make_context()).xcom_value
        event = {"jobkey": jobkey, "attempt": attempt, "sentence": ""}
        try:
            return sensor.execute_complete(make_context(), event)
        except TaskDeferred:
            return None

    return end


def test_a_stale_success_is_told_with_what_has_run_again_and_when(
    ending, run, rerun_member, store, warned
):
    run()
    rerun_member()

    value = ending(make_sensor())

    told = store.read_stale_mark(KEY, f"{CLAIMS}-a1")
    assert "written again by acme/member 2026-03-01, attempt 2, 20" in str(told)
    sentence = f"acme/claims 2026-03-01, attempt 1: succeeded, but is stale: {told}"
    assert value["stale"] == sentence
    assert warned == [f"{sentence}; run it again"]


def test_a_success_that_is_up_to_date_is_told_nothing_about(ending, run, warned):
    run()

    assert "stale" not in ending(make_sensor())
    assert warned == []


def test_it_fails_where_that_is_wanted(ending, run, rerun_member):
    run()
    rerun_member()

    with pytest.raises(AirflowFailException, match=r"stale: its input .* acme/member"):
        ending(make_sensor("fail"))


def test_it_waits_where_that_is_wanted_until_the_job_has_run_again(
    ending, run, rerun_member, warned
):
    sensor = make_sensor("wait")
    run()
    rerun_member()
    assert ending(sensor) is None
    assert "is stale: its input was written again by acme/member" in warned[0]

    run(attempt=2)

    assert ending(sensor, attempt=2)["attempt"] == 2


def test_a_mark_that_nobody_can_read_still_counts(ending, run, store, s3):
    run()
    key = f"test/history/acme/claims/2026-03-01/{CLAIMS}-a1.stale.json"
    s3.put_object(Bucket=store.bucket, Key=key, Body=b"[]")

    assert ending(make_sensor())["stale"].endswith("written again by something unknown")


@pytest.mark.parametrize("stale", ["warn", "wait", "fail"])
def test_a_success_of_another_run_that_is_up_to_date_counts_most(
    run, rerun_member, make_context, stale
):
    run(requested=5.0)
    rerun_member()
    run(jobkey=OTHER, requested=2.0)

    value = make_sensor(stale).poke(make_context()).xcom_value

    assert (value["jobkey"], "stale" in value) == (OTHER, False)


def test_who_waits_for_another_run_fails_with_it(run, rerun_member, make_context):
    run()
    rerun_member()
    run(Outcome.JOB_FAILED, jobkey=OTHER, requested=2.0)

    assert make_sensor().poke(make_context()).xcom_value["stale"]
    with pytest.raises(AirflowFailException, match="job failed"):
        make_sensor("wait").poke(make_context())


def test_an_array_is_as_stale_as_one_of_its_parts(run, store, make_context):
    run(array_size=2)
    run(jobkey=OTHER, array_size=2, array_index=1)
    store.mark_stale(KEY, f"{OTHER}-a1", by="acme/member 2026-03-01")

    assert make_sensor("wait").poke(make_context()).is_done is False
    assert "stale" in make_sensor().poke(make_context()).xcom_value


def test_what_to_do_is_checked_and_goes_with_the_trigger(make_context):
    with pytest.raises(ValueError, match="stale='never': write one of warn, wait, fail"):
        make_sensor("never")
    with pytest.raises(TaskDeferred) as deferred:
        make_sensor("wait").execute(make_context())
    assert deferred.value.trigger.serialize()[1]["stale"] == "wait"


@pytest.mark.parametrize("jobkey", [None, CLAIMS], ids=["by date", "by launch"])
def test_the_triggerer_waits_for_another_run_and_says_why_once(run, rerun_member, jobkey):
    run()
    rerun_member()
    trigger = EphemeralEC2JobTrigger("acme", "claims", "2026-03-01", jobkey, 0.01, "wait")
    said = []
    trigger._log = SimpleNamespace(info=lambda text, *words: said.append(text % words))

    async def story():
        event = asyncio.ensure_future(anext(trigger.run()))
        async with asyncio.timeout(20):
            while not said and not event.done():
                await asyncio.sleep(0.005)
            run(attempt=2)
            return (await event).payload

    assert asyncio.run(story())["attempt"] == 2
    [line] = said
    assert line.endswith("; waits for another run")


def test_the_triggerer_leaves_the_rest_to_the_sensor(run, rerun_member):
    run()
    rerun_member()
    trigger = EphemeralEC2JobTrigger("acme", "claims", "2026-03-01")

    async def first():
        return (await anext(trigger.run())).payload

    assert asyncio.run(first())["attempt"] == 1
