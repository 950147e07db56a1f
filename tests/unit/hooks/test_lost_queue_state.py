"""The queue state is lost or damaged under a controller that is alive, or that is new."""

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.outcome import Outcome
from tests.unit.hooks.scripted import name_of, outcome_of, report

KEY = "test/queue-state.json"
POLL_SECONDS = 5
LOST = pytest.mark.parametrize(
    "body",
    [None, b"", b"{", b'{"version": 9}', b"[]"],
    ids=["deleted", "empty", "cut off", "another version", "not ours"],
)


@pytest.fixture
def lose(store):
    def lose(body):
        if body is None:
            store.s3.delete_object(Bucket=store.bucket, Key=KEY)
        else:
            store.s3.put_object(Bucket=store.bucket, Key=KEY, Body=body)

    return lose


@pytest.fixture
def running(controller, fleet, submit):
    """A job that runs, and takes two of the four vCPUs."""
    record = submit("a" * 40, limit=4)
    controller.tick()
    fleet.set("i-0", "running")
    fleet.shown = {"i-0": name_of(record)}
    return record


@LOST
def test_a_lost_state_is_made_again_within_a_minute_though_nothing_happens(
    controller, store, clock, lose, running, body
):
    lose(body)

    for _ in range(60 // POLL_SECONDS):
        clock.at += POLL_SECONDS
        controller.tick()

    state, _ = store.read_state()
    assert not state.is_rebuilt
    assert state.entries[name_of(running)].instance_id == "i-0"


@LOST
@pytest.mark.parametrize("is_heir", [False, True], ids=["same controller", "heir"])
def test_meanwhile_nobody_is_admitted_and_who_runs_is_left_alone(
    controller, fleet, store, submit, clock, lose, running, body, is_heir
):
    """EC2 does not answer for some seconds; of two that wait there is room for one."""
    lose(body)
    first, second = (submit(letter * 40, limit=4) for letter in "bc")
    fleet.is_blind = True
    new = Controller(store, lambda *_: fleet, in_parallel=one_by_one)
    decides = new if is_heir else controller

    for _ in range(4):
        clock.at += POLL_SECONDS
        decides.tick()
    assert len(fleet.requests) == 1
    assert "blind" in decides.story_of(name_of(first))[-1]
    fleet.is_blind = False
    clock.at += POLL_SECONDS
    decides.tick()

    machines = [decides.machine_of(name_of(one)) for one in (running, first, second)]
    assert machines == ["i-0", "i-1", None]
    assert fleet.terminated == []
    report(store, running, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    assert outcome_of(decides, running).outcome is Outcome.SUCCEEDED
    assert decides.machine_of(name_of(second)) == "i-2"


@LOST
def test_two_that_find_it_lost_launch_each_job_once(
    controller, fleet, store, submit, clock, lose, running, body
):
    """The one that held the lease still believes in it; the other finds none."""
    lose(body)
    record = submit("b" * 40, limit=4)
    other = Controller(store, lambda *_: fleet, in_parallel=one_by_one)

    for _ in range(12):
        other.tick()
        controller.tick()
        clock.at += POLL_SECONDS

    tokens = [request["ClientToken"] for request in fleet.requests]
    assert tokens == [one.placements[0].client_token for one in (running, record)]
    assert fleet.terminated == []
