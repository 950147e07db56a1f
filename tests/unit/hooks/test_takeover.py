"""Who takes over many attempts, while every call takes its time and others want the lease too."""

import pytest

from airflow_ephemeral_ec2.exceptions import AwsUnavailableError
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.open_attempts import READ_AT_ONCE
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.queue import Lease
from tests.state_machine.simulated_s3 import s3_error
from tests.unit.hooks.scripted import name_of, report
from tests.unit.hooks.turns import Turns

RUNNING = 150
READ_SECONDS = 0.25
"""Two reads for each that runs: 75 s, and a lease is good for 60 s."""
POLL_SECONDS = 5.0


class SlowBucket:
    """Reads of objects take time; counts them by key."""

    def __init__(self, s3, turns):
        self._s3, self._turns = s3, turns
        self.read: list[str] = []

    def __getattr__(self, name):
        return getattr(self._s3, name)

    def get_object(self, **request):
        self.read.append(request["Key"])
        self._turns.sleep(READ_SECONDS)
        return self._s3.get_object(**request)

    @property
    def entries(self):
        return [key for key in self.read if "/queue/" in key]


class FailingBucket:
    """Fails one read."""

    def __init__(self, s3, at):
        self._s3, self._left = s3, at

    def __getattr__(self, name):
        return getattr(self._s3, name)

    def get_object(self, **request):
        self._left -= 1
        if not self._left:
            raise s3_error("InternalError", 500, "GetObject")
        return self._s3.get_object(**request)


class Host:
    """A process with a controller that makes one pass after the other."""

    def __init__(self, store, clock, fleet, turns):
        self.s3, self._turns = SlowBucket(store.s3, turns), turns
        self.store = JobStore(self.s3, store.bucket, store.environment)
        self.store.clock = clock
        self.asked = 0
        self._fleet = fleet
        self.controller = Controller(self.store, self._fleet_for, in_parallel=one_by_one)

    def _fleet_for(self, *_place):
        self.asked += 1
        return self._fleet

    def work(self):
        while True:
            self.controller.tick()
            self._turns.sleep(POLL_SECONDS)


@pytest.fixture
def turns(clock):
    return Turns(clock)


@pytest.fixture
def make_host(store, clock, fleet, turns):
    return lambda: Host(store, clock, fleet, turns)


@pytest.fixture
def running(launch_many):
    return [name_of(record) for record in launch_many(RUNNING)]


def test_two_that_take_over_at_the_same_time_do_not_take_the_lease_from_each_other(
    make_host, turns, fleet, running, submit
):
    submit("f" * 40, limit=10_000)
    hosts = [make_host(), make_host()]
    for host in hosts:
        turns.start(host.work)

    turns.run(120)

    assert len(fleet.requests) == 1
    assert sorted(bool(host.asked) for host in hosts) == [False, True]


def test_who_has_lost_the_lease_in_the_middle_goes_on_where_it_was(
    make_host, turns, store, running, submit
):
    """Another has the lease for a while and does nothing with it."""
    host = make_host()
    turns.start(host.work)

    def usurp():
        turns.sleep(45.0)
        state, etag = store.read_state()
        lease = Lease(holder="somebody else", expires_at=store.clock.now() + 60)
        assert store.write_state(state.model_copy(update={"lease": lease}), etag)

    turns.start(usurp)
    turns.run(200)

    assert len(host.controller._open.memories) == RUNNING
    assert len(host.s3.entries) == len(set(host.s3.entries)) == RUNNING


def test_who_loses_the_lease_while_new_attempts_are_read_still_says_when_it_looks_next(
    store, clock, fleet, submit, launch_many
):
    """An attempt that was read and has no place in the queue yet is expected to end at no time."""
    host = JobStore(store.s3, store.bucket, store.environment)
    host.clock = clock
    controller = Controller(host, lambda *_: fleet, in_parallel=one_by_one)
    record = submit("f" * 40)
    controller.tick()
    clock.at += 60
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    controller.tick()
    for number in range(READ_AT_ONCE + 1):
        submit(f"{number:040d}")
    controller._ledger.keep_lease = lambda: False

    controller.tick()

    assert controller._open.memories.keys() - controller._ledger.entries.keys()
    assert controller.expects_end(4.0) is False


def test_a_read_that_fails_in_the_middle_makes_no_attempt_forgotten(store, clock, fleet, running):
    failing = FailingBucket(store.s3, at=2 * READ_AT_ONCE + 20)
    host = JobStore(failing, store.bucket, store.environment)
    host.clock = clock
    controller = Controller(host, lambda *_: fleet, in_parallel=one_by_one, list_every=3)
    with pytest.raises(AwsUnavailableError):
        controller.follow(running[:1])

    controller.follow(running[:1])

    assert set(store.read_state()[0].entries) == set(running)
    assert len(controller._open.memories) == RUNNING
