"""Which open attempts nobody awaits any more, by what Airflow says of their tasks."""

import pytest

from airflow_ephemeral_ec2.hooks.abandoned import OVER, find_abandoned
from airflow_ephemeral_ec2.model.identity import TaskIdentity, name_jobkey
from airflow_ephemeral_ec2.model.plan import plan_entry


@pytest.fixture
def submit(store, make_record):
    """Open an attempt of payer_acme.claims for a run; the bucket never has the run's id."""

    def submit(run_id, map_index=-1, is_awaited=True):
        identity = TaskIdentity("payer_acme", run_id, "claims", map_index)
        jobkey = name_jobkey(store.read_secret(), store.environment, identity)
        record = make_record(jobkey=jobkey).model_copy(update={"is_awaited": is_awaited})
        record = store.write_launch(record)
        store.write_entry(plan_entry(record))
        return f"{jobkey}-a1"

    return submit


def airflow(states):
    """Answer as Airflow does for the one task of these tests."""
    return lambda dag_id, task_id: states if (dag_id, task_id) == ("payer_acme", "claims") else {}


@pytest.mark.parametrize("state", sorted(OVER))
def test_K5_an_attempt_whose_task_is_over_is_abandoned(store, submit, state):
    """The task was marked while nobody could hear it."""
    name = submit("run 1")

    assert find_abandoned(store, airflow({("run 1", -1): state})) == {name: state}


@pytest.mark.parametrize(
    "state", ["deferred", "running", "queued", "scheduled", "up_for_retry", "restarting", "none"]
)
def test_an_attempt_that_a_task_may_still_await_is_not(store, submit, state):
    submit("run 1")

    assert find_abandoned(store, airflow({("run 1", -1): state})) == {}


def test_K5_an_attempt_whose_run_was_deleted_is_abandoned(store, submit):
    """Somebody deleted the DAG run while nobody could hear it."""
    gone, kept = submit("run 1"), submit("run 2")

    found = find_abandoned(store, airflow({("run 2", -1): "deferred"}))

    assert found == {gone: "removed"}
    assert kept not in found


def test_what_airflow_cannot_say_is_not_abandoned(store, submit):
    submit("run 1")

    assert find_abandoned(store, lambda *_: None) == {}


def test_each_mapped_instance_is_looked_at_by_itself(store, submit):
    first, second = submit("run 1", 0), submit("run 1", 1)

    found = find_abandoned(store, airflow({("run 1", 0): "deferred", ("run 1", 1): "failed"}))

    assert found == {second: "failed"}
    assert first not in found


def test_an_attempt_that_no_task_awaits_is_never_abandoned(store, submit):
    """``wait_for_completion=False``, and ``ephemeral-ec2 run``."""
    submit("run 1", is_awaited=False)

    assert find_abandoned(store, airflow({("run 1", -1): "success"})) == {}


def test_an_entry_without_a_readable_record_holds_up_no_other(store, submit):
    name = submit("run 1")
    store.write_new("test/queue/rubbish.json", b"{}")
    store.write_new(f"test/queue/{'f' * 40}-a1.json", b"{}")

    assert find_abandoned(store, airflow({("run 1", -1): "failed"})) == {name: "failed"}
