"""Waiting for a job that somebody else started."""

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_ephemeral_ec2.model.outcome import Budget, Outcome, Verdict
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.record import Times, conclude
from airflow_ephemeral_ec2.sensors.ec2 import EphemeralEC2Sensor

JOBKEY = "a" * 40


def make_sensor(**changes):
    arguments = {"payer": "acme", "job": "claims"} | changes
    return EphemeralEC2Sensor(task_id="wait", **arguments)


@pytest.fixture
def started(store, make_record):
    def start(attempt=1, jobkey=JOBKEY, **changes):
        record = store.write_launch(make_record(attempt=attempt, jobkey=jobkey, **changes))
        store.write_date_index(record)
        return record

    return start


def end(store, record, outcome, budget=Budget.NONE, **fields):
    verdict = Verdict(outcome, "why", budget)
    store.write_outcome(
        conclude(record, verdict, Times(requested=record.requested_at), fields=fields)
    )


def resume(attempt=1):
    return make_sensor().execute_complete({}, {"jobkey": JOBKEY, "attempt": attempt})


def test_it_needs_a_launch_or_a_payer_and_a_job():
    with pytest.raises(ValueError, match="give launch, or payer and job"):
        EphemeralEC2Sensor(task_id="wait", payer="acme")


def test_it_waits_by_payer_job_and_date_without_a_worker(make_context):
    with pytest.raises(TaskDeferred) as deferred:
        make_sensor().execute(make_context())

    _, arguments = deferred.value.trigger.serialize()
    assert (arguments["payer"], arguments["job"]) == ("acme", "claims")
    assert (arguments["business_date"], arguments["jobkey"]) == ("2026-03-01", None)


def test_it_waits_by_what_a_launch_returned(make_context):
    launch = {"payer": "acme", "job": "x", "business_date": "2026-03-05", "jobkey": JOBKEY}

    with pytest.raises(TaskDeferred) as deferred:
        make_sensor(launch=launch).execute(make_context())

    assert deferred.value.trigger.serialize()[1]["jobkey"] == JOBKEY


def test_a_launch_of_the_wrong_kind_is_named(make_context):
    with pytest.raises(AirflowFailException, match="found str"):
        make_sensor(launch="i-0abc").execute(make_context())


def test_a_success_is_returned(deployment, store, started):
    end(store, started(), Outcome.SUCCEEDED, exit_code=0)

    assert resume()["exit_code"] == 0


def test_a_failure_fails_with_the_jobs_own_ending(deployment, store, started):
    end(store, started(), Outcome.JOB_FAILED, exit_code=65)

    with pytest.raises(
        AirflowFailException, match=r"acme/claims 2026-03-01, attempt 1: job failed"
    ):
        resume()


def test_a_skip_is_a_skip(deployment, store, started):
    end(store, started(), Outcome.SKIPPED, exit_code=99)

    with pytest.raises(AirflowSkipException):
        resume()


def test_a_poke_sees_nothing_before_anybody_asked(deployment, make_context):
    assert make_sensor(deferrable=False).poke(make_context()).is_done is False


def test_a_poke_waits_while_another_attempt_will_follow(deployment, store, started, make_context):
    end(store, started(), Outcome.SPOT_INTERRUPTED, Budget.INFRA)
    sensor = make_sensor(deferrable=False)
    assert sensor.poke(make_context()).is_done is False

    end(store, started(attempt=2), Outcome.SUCCEEDED, exit_code=0)

    assert sensor.poke(make_context()).xcom_value["attempt"] == 2


def test_a_poke_takes_a_success_of_any_run_of_that_date(deployment, store, started, make_context):
    end(store, started(jobkey="b" * 40), Outcome.SUCCEEDED, exit_code=0)
    store.write_entry(plan_entry(started()))

    value = make_sensor(deferrable=False).poke(make_context()).xcom_value

    assert value["jobkey"] == "b" * 40


def test_a_launch_that_nobody_awaited_is_not_expected_to_be_retried(
    deployment, store, started, make_context
):
    end(store, started(may_retry=False), Outcome.SPOT_INTERRUPTED, Budget.INFRA)

    with pytest.raises(AirflowFailException, match="no retries left"):
        make_sensor(deferrable=False).poke(make_context())


def test_an_array_has_succeeded_when_every_part_has(deployment, store, started, make_context):
    sensor = make_sensor(deferrable=False)
    first = started(jobkey="a" * 40, array_size=2)
    end(store, first, Outcome.SUCCEEDED, exit_code=0)
    assert sensor.poke(make_context()).is_done is False

    second = started(jobkey="b" * 40, array_size=2, array_index=1)
    assert sensor.poke(make_context()).is_done is False
    end(store, second, Outcome.SUCCEEDED, exit_code=0)

    assert sensor.poke(make_context()).is_done is True


def test_an_array_fails_with_its_failed_part(deployment, store, started, make_context):
    end(store, started(jobkey="a" * 40, array_size=2), Outcome.SUCCEEDED, exit_code=0)
    bad = started(jobkey="b" * 40, array_size=2, array_index=1)
    end(store, bad, Outcome.JOB_FAILED, exit_code=65)

    with pytest.raises(AirflowFailException, match="attempt 1: job failed"):
        make_sensor(deferrable=False).poke(make_context())
