"""A triggerer without the lease: what it costs, how soon it hears, when it takes over."""

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from tests.unit.hooks.scripted import name_of, report

POLL_SECONDS = 4.0
PASSES = 15
"""A minute of them."""


class CountedBucket:
    """Notes the calls."""

    def __init__(self, s3):
        self._s3, self.calls = s3, []

    def __getattr__(self, name):
        found = getattr(self._s3, name)

        def call(*args, **request):
            self.calls.append(name)
            return found(*args, **request)

        return call


class Host:
    """A triggerer: makes a pass when told."""

    def __init__(self, store, clock, fleet):
        self.s3 = CountedBucket(store.s3)
        own = JobStore(self.s3, store.bucket, store.environment)
        own.clock = clock
        self.controller = Controller(own, lambda *_: fleet, in_parallel=one_by_one, list_every=3)

    def follow(self, *names):
        return self.controller.follow(names)


@pytest.fixture
def holder(store, clock, fleet):
    return Host(store, clock, fleet)


@pytest.fixture
def other(store, clock, fleet):
    return Host(store, clock, fleet)


@pytest.fixture
def running(submit, holder, fleet):
    record = submit(max_runtime="5h")
    holder.follow()
    fleet.set("i-0", "running")
    return record


def test_it_makes_one_call_a_pass(holder, other, running, clock):
    other.follow(name_of(running))
    other.s3.calls.clear()

    for _ in range(PASSES):
        clock.at += POLL_SECONDS
        holder.follow()
        assert other.follow(name_of(running)) == {}

    assert len(other.s3.calls) == PASSES
    assert other.s3.calls.count("get_paginator") == PASSES / 3


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_it_hears_of_an_end_in_the_pass_after_it(holder, other, running, store, fleet, passes):
    name = name_of(running)
    for _ in range(passes):
        holder.follow()
        assert other.follow(name) == {}
    report(store, running, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    holder.follow()

    assert name in other.follow(name)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_dead_holder_is_followed_in_the_pass_after_its_lease(
    holder, other, running, clock, submit, fleet, store, passes
):
    for _ in range(passes):
        other.follow(name_of(running))
        clock.at += POLL_SECONDS
    submit("b" * 40)
    expires_at = store.read_state()[0].lease.expires_at

    while len(fleet.requests) < 2:
        assert clock.at < expires_at + POLL_SECONDS
        clock.at += POLL_SECONDS
        other.follow(name_of(running))

    assert clock.at >= expires_at


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_lease_that_is_given_back_is_taken_two_passes_later_at_most(
    holder, other, running, submit, fleet, passes
):
    for _ in range(passes):
        other.follow(name_of(running))
    submit("b" * 40)
    holder.controller.release()

    for _ in range(2):
        other.follow(name_of(running))

    assert len(fleet.requests) == 2


def test_a_name_that_is_new_is_looked_for_at_once_and_is_not_over(holder, other, running, submit):
    other.follow(name_of(running))
    new = submit("b" * 40)
    other.s3.calls.clear()

    assert other.controller.tick({name_of(running), name_of(new)}, may_skip_listing=True) >= {
        name_of(running),
        name_of(new),
    }
    assert "get_paginator" in other.s3.calls


def test_who_has_lost_the_lease_hears_of_ends_too(holder, other, running, store, fleet, clock):
    """It holds what it knew of the queue, and the other has ended an attempt since."""
    clock.at += LEASE_SECONDS + 1
    other.follow()
    name = name_of(running)
    assert holder.follow(name) == {}
    report(store, running, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    other.follow()

    assert name in holder.follow(name)


def test_a_task_that_it_follows_hears_why_it_waits_and_that_it_was_launched(
    holder, other, submit, fleet, store, clock
):
    """Two vCPUs for two jobs of two each; the second waits, and its trigger runs here."""
    first, second = submit("a" * 40, limit=2), submit("b" * 40, limit=2)
    holder.follow()
    other.follow(name_of(second))

    for _ in range(3):
        holder.follow()
        other.follow(name_of(second))

    assert other.controller.story_of(name_of(second)) == (
        "queued: 2 vCPU wanted, 0 of 2 free; first in line",
    )
    report(store, first, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    for _ in range(4):
        clock.at += POLL_SECONDS
        holder.follow()
        other.follow(name_of(second))
    assert other.controller.story_of(name_of(second))[1:] == ("launched i-1 (on-demand)",)


def test_who_takes_over_does_not_tell_the_same_again(holder, other, submit, clock):
    submit("a" * 40, limit=2)
    second = submit("b" * 40, limit=2)
    holder.follow()
    other.follow(name_of(second))
    clock.at += LEASE_SECONDS + 1

    other.follow(name_of(second))

    assert len(other.controller.story_of(name_of(second))) == 1


def test_it_does_not_look_each_second_for_launches_that_are_the_others(
    holder, other, submit, clock
):
    """Launches are paced; between two passes only the controller that acts has any to make."""
    names = [name_of(submit(f"{number:040d}")) for number in range(15)]
    holder.follow()
    other.follow(names[-1])
    assert holder.controller.has_launches

    assert not other.controller.has_launches

    clock.at += LEASE_SECONDS + 1
    other.follow(names[-1])
    assert other.controller.has_launches
