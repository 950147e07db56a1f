"""Processes of ours that are killed by ``kill -9``, and records that are older than the bucket."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.hooks.abandoned import find_abandoned
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.identity import Step, name_jobkey
from airflow_ephemeral_ec2.model.outcome import Kill
from tests.integration.counted_jobs import counting_engine

ROOT = Path(__file__).parents[2]
BY_PERSON = Kill("cancelled", by="a person")


@pytest.fixture(scope="module")
def cloud():
    seed = {"state_bucket": "records"}
    with local_ec2(seed=seed, pending=0.1, shutting_down=0.1, stop_grace=0.5) as cloud:
        yield cloud


@pytest.fixture
def engine(cloud, make_spec):
    with counting_engine(cloud, make_spec) as engine:
        yield engine


@pytest.fixture
def die(cloud, tmp_path):
    """Let a process do something until it is killed before a call."""

    def die(what, given, *, before, key=""):
        file = tmp_path / "what.pickle"
        file.write_bytes(pickle.dumps((what, given)))
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.dying_worker", str(file), before, key],
            cwd=ROOT, env=os.environ | cloud.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == -9, done.stderr

    return die


def let_the_lease_end(engine):
    engine.store.clock.ahead += LEASE_SECONDS + 1


def test_L1_a_worker_that_is_killed_before_the_launch_record_has_launched_nothing(engine, die):
    """The worker is killed (SIGKILL) before it writes the launch record; the task is retried."""
    order = engine.order(command=engine.count_and("true"))
    jobkey = name_jobkey(engine.store.read_secret(), "demo", order.identity)
    die("open", order, before="s3.PutObject", key="launch.json")
    controller = engine.controller()
    controller.tick()

    assert list(engine.store.list_keys(f"demo/jobs/{jobkey}/")) == []
    assert engine.fleet.find_attempt(jobkey, 1) == []
    opened = engine.submit(order)
    found = engine.wait(opened, controller)

    assert (found.outcome, found.attempt, engine.runs) == ("succeeded", 1, 1)
    assert engine.launch_calls(opened) == [(0, None)]


@pytest.mark.parametrize(
    ("before", "key"),
    [("ec2.DescribeInstances", ""), ("s3.PutObject", "outcome.json")],
    ids=["while it watches", "before the outcome"],
)
def test_O1_another_process_goes_on_from_the_bucket_when_one_is_killed(engine, die, before, key):
    """Whoever launched and watches is killed (SIGKILL); nobody has its memory."""
    opened = engine.counted("sleep 1")
    die("wait", opened.name, before=before, key=key)
    assert engine.launch_calls(opened) == [(0, None)]
    assert engine.store.read_outcome(opened.jobkey, 1) is None
    let_the_lease_end(engine)

    found = engine.wait(opened)

    assert (found.outcome, engine.runs) == ("succeeded", 1)
    assert list(engine.machines(opened)) == [found.machine.instance_id]


def test_O14_a_success_that_nobody_was_told_is_told_to_the_retry(engine, die):
    """Who has written the outcome is killed (SIGKILL) before anybody hears of it."""
    order = engine.order(command=engine.count_and("true"))
    opened = engine.submit(order)
    die("wait", opened.name, before="s3.DeleteObject", key="demo/queue/")
    written = engine.store.read_outcome(opened.jobkey, 1)
    let_the_lease_end(engine)

    again = engine.submit(order)
    found = engine.wait(again)

    assert again.choice.step is Step.RETURN
    assert (found.outcome, found.attempt) == ("succeeded", 1)
    assert found == written
    assert engine.runs == 1
    assert engine.store.list_queue().entries == frozenset()


@pytest.mark.parametrize("is_over", [True, False], ids=["after its end", "while it runs"])
def test_O12_a_database_that_was_restored_runs_nothing_a_second_time(engine, is_over):
    """Airflow's database is a backup from before the task began: it starts the task again."""
    order = engine.order(command=engine.count_and("sleep 1"))
    first = engine.submit(order)
    controller = engine.launch(first)
    if is_over:
        assert engine.wait(first, controller).outcome == "succeeded"

    again = engine.submit(order)

    assert again.choice.step is (Step.RETURN if is_over else Step.ADOPT)
    assert engine.wait(again, controller).outcome == "succeeded"
    assert (again.name, engine.runs) == (first.name, 1)
    assert engine.launch_calls(first) == [(0, None)]


@pytest.mark.parametrize(
    ("before", "key"),
    [("s3.PutObject", "start-lock"), ("ec2.TerminateInstances", "")],
    ids=["before the revoke", "before the end of the machine"],
)
def test_K6_a_kill_that_is_killed_half_way_is_completed_by_the_controller(engine, die, before, key):
    """``on_kill`` is killed (SIGKILL) after it has asked for the end."""
    opened = engine.counted("sleep 60")
    controller = engine.launch(opened)
    machine = engine.wait_for_lock(opened)
    die("kill", (opened.jobkey, 1, BY_PERSON), before=before, key=key)
    assert engine.cloud.instances()[machine] == "running"

    found = engine.wait(opened, controller)

    assert (found.outcome, found.reason) == ("killed", "cancelled by a person")
    assert engine.cloud.states(machine)[-1] == "terminated"


def test_K5_an_attempt_whose_task_is_over_is_found_and_ended_though_nobody_heard_it(engine):
    """The task is marked failed while no trigger and no controller lives."""
    order = engine.order(command=engine.count_and("sleep 60"))
    opened = engine.submit(order)
    engine.launch(opened)
    machine = engine.wait_for_lock(opened)
    states = {(order.identity.run_id, -1): "failed"}

    assert find_abandoned(engine.store, lambda *_: states) == {opened.name: "failed"}
    kill_attempt(engine.store, engine.fleet, opened.jobkey, 1, BY_PERSON)

    engine.cloud.wait_for_state(machine, "terminated")
    let_the_lease_end(engine)
    assert engine.wait(opened).outcome == "killed"


def test_L12_K5_the_attempt_of_a_cleared_task_is_gone_before_the_next_is_launched(engine):
    """The task is cleared while its machine lives and nobody hears it; the next try begins."""
    order = engine.order(command=engine.count_and("sleep 60"))
    first = engine.submit(order)
    controller = engine.launch(first)
    machine = engine.wait_for_lock(first)
    short = order.spec.model_copy(update={"command": tuple(engine.count_and("true"))})

    second = engine.submit(replace(order, spec=short, epoch="cleared"))
    found = engine.wait(second, controller)

    assert second.choice.attempt == 2
    assert (found.outcome, found.attempt) == ("succeeded", 2)
    assert engine.store.read_outcome(first.jobkey, 1).outcome == "superseded"
    ended = [line["t"] for line in engine.cloud.lines() if line.get("event") == "state"
             and line["instance_id"] == machine and line["state"] == "terminated"]  # fmt: skip
    assert ended[0] <= engine.launches(second)[0]["t"]
    assert engine.runs == 2
