"""Attempts that wait for the one before them: what it costs to look, pass after pass."""

import pytest

from airflow_ephemeral_ec2.hooks.attempts import supersede
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.plan import plan_entry
from tests.unit.hooks.scripted import name_of

CLEARED = 5
"""So many cleared jobs wait for room."""


@pytest.fixture
def looks(store, monkeypatch):
    """Outcomes of first attempts that are read, one after the other."""
    found, get = [], store.s3.get_object

    def get_object(**request):
        if request["Key"].endswith("a1/outcome.json"):
            found.append(request["Key"])
        return get(**request)

    monkeypatch.setattr(store.s3, "get_object", get_object)
    return found


@pytest.fixture
def batches():
    """How many reads are made at once, each time."""
    return []


@pytest.fixture
def controller(store, fleet, clock, batches):
    def in_parallel(function, items):
        items = list(items)
        batches.append(len(items))
        return one_by_one(function, items)

    return Controller(store, lambda *_: fleet, in_parallel=in_parallel)


@pytest.fixture
def cleared(submit, end):
    """Jobs whose first attempt is over and whose second waits; one machine has all the room."""
    submit("f" * 40, limit=2, priority=900, attempt=9)
    records = []
    for number in range(CLEARED):
        jobkey = f"{number:040d}"
        end("claims", jobkey=jobkey)
        records.append(submit(jobkey, limit=2, attempt=2, supersedes=1, priority=1))
    return records


def test_an_attempt_before_that_is_over_is_looked_for_once_however_long_the_next_waits(
    controller, fleet, clock, looks, batches, cleared
):
    for _ in range(4):
        controller.tick()
        clock.at += 4

    assert len(fleet.requests) == 1
    assert "0 of 2 free" in controller.story_of(name_of(cleared[0]))[-1]
    assert len(looks) == CLEARED
    assert CLEARED in batches


def test_an_attempt_before_that_is_not_over_is_looked_for_until_it_is(
    controller, fleet, store, submit, end, looks
):
    second = submit("a" * 40, attempt=2, supersedes=1)
    controller.tick()
    controller.tick()
    assert fleet.requests == []
    assert "attempt 1 is still being ended" in controller.story_of(name_of(second))[-1]

    end("claims", jobkey="a" * 40)
    controller.tick()

    assert len(fleet.requests) == 1
    assert len(looks) == 3


def test_B7_a_task_that_was_cleared_twice_waits_for_the_machine_of_its_first_attempt(
    controller, fleet, store, submit
):
    """The second attempt ends without a machine, before that of the first is gone."""
    first = submit("a" * 40)
    controller.tick()
    fleet.set("i-0", "running")
    supersede(store, fleet, first)
    second = submit("a" * 40, attempt=2, supersedes=1)
    fleet.set("i-0", "shutting-down")
    controller.tick()
    supersede(store, fleet, second)
    third = submit("a" * 40, attempt=3, supersedes=2)

    for _ in range(3):
        controller.tick()

    assert store.read_outcome("a" * 40, 2).outcome == Outcome.SUPERSEDED
    assert len(fleet.requests) == 1
    assert "attempt 1 is still being ended" in controller.story_of(name_of(third))[-1]
    shown = QueueReader(store, one_by_one).read().obstacles[name_of(third)]
    assert shown == "attempt 1 is still being ended"
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    for _ in range(3):
        controller.tick()
    assert len(fleet.requests) == 2


def test_what_is_known_of_an_attempt_before_is_forgotten_when_the_next_leaves_the_queue(
    controller, store, looks, cleared
):
    controller.tick()
    for record in cleared:
        store.close_entry(name_of(record))
    controller.tick()
    before = len(looks)
    store.write_entry(plan_entry(cleared[0]))

    controller.tick()
    controller.tick()

    assert len(looks) == before + 1
