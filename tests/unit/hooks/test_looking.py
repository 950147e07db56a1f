"""Places that cannot be asked: left alone for longer and longer, and nobody else waits for them."""

import itertools
import threading

import pytest

from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.looking import FULL_SWEEP_SECONDS
from airflow_ephemeral_ec2.hooks.parallel import in_threads, one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.sweep import CROWD, SPARING_SECONDS, Shown
from tests.unit.hooks.scripted import ScriptedFleet, name_of, report, wait_until

POLL_SECONDS = 4.0
US, EU = "us-east-1", "eu-central-1"


class Region(ScriptedFleet):
    """Notes when it is looked at; may fail, and may take its time."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock
        self.asked: list[tuple[float, bool]] = []
        self.error: Exception | None = None
        self.while_asked = lambda: None
        self.others = 0
        self.endings: list = []

    def observe(self, instance_ids, *, all_states, launched_at=(), ending=None):
        self.asked.append((self._clock.at, all_states))
        self.while_asked()
        if self.error is not None:
            raise self.error
        self.endings.append(None if ending is None else set(ending))
        shown = super().observe(instance_ids, all_states=all_states)
        if ending is None:
            return Shown(shown.machines, 0 if all_states else self.others)
        # As EC2 would: of the dead only those that are asked for.
        return Shown([o for o in shown.machines if o.instance_id in ending or not o.is_dead])


@pytest.fixture
def regions(clock):
    return {US: Region(clock), EU: Region(clock)}


@pytest.fixture
def make_controller(store, regions):
    def make(in_parallel=one_by_one):
        return Controller(
            store, lambda _connection, region: regions[region], in_parallel=in_parallel
        )

    return make


@pytest.fixture
def jobs(submit):
    return {US: submit("a" * 40, region=US), EU: submit("b" * 40, region=EU)}


def make_passes(controller, clock, seconds):
    until = clock.at + seconds
    while clock.at < until:
        clock.at += POLL_SECONDS
        controller.tick()


def test_a_place_that_fails_is_asked_less_and_less_and_the_others_as_ever(
    make_controller, regions, jobs, clock
):
    controller = make_controller()
    controller.tick()
    regions[EU].error = AwsUnavailableError("ec2:DescribeInstances", "503")

    make_passes(controller, clock, 600)

    times = [at for at, _ in regions[EU].asked]
    pauses = [later - at for at, later in itertools.pairwise(times)]
    assert len(regions[US].asked) == 150
    assert sum(is_full for _, is_full in regions[US].asked) == 600 / FULL_SWEEP_SECONDS
    assert pauses[0] <= 8
    assert pauses == sorted(pauses, key=lambda pause: min(pause, 54))
    assert 54 <= max(pauses) <= 66 + POLL_SECONDS


def test_a_place_that_answers_again_is_asked_in_each_pass(make_controller, regions, jobs, clock):
    controller = make_controller()
    controller.tick()
    regions[EU].error = AwsUnavailableError("ec2:DescribeInstances", "503")
    make_passes(controller, clock, 300)
    regions[EU].error = None
    make_passes(controller, clock, 70)
    before = len(regions[EU].asked)

    make_passes(controller, clock, 40)

    assert len(regions[EU].asked) - before == 10
    regions[EU].error = AwsUnavailableError("ec2:DescribeInstances", "503")
    make_passes(controller, clock, POLL_SECONDS)
    failed_at = regions[EU].asked[-1][0]
    make_passes(controller, clock, 2 * POLL_SECONDS)
    assert regions[EU].asked[-1][0] - failed_at == 2 * POLL_SECONDS


def test_a_full_look_that_failed_is_made_again(make_controller, regions, jobs, clock):
    controller = make_controller()
    controller.tick()
    clock.at += FULL_SWEEP_SECONDS
    regions[EU].error = AwsUnavailableError("ec2:DescribeInstances", "503")
    controller.tick()
    regions[EU].error = None

    make_passes(controller, clock, 12)

    full = [is_full for _, is_full in regions[EU].asked]
    assert full[:2] == [True, True]
    assert full[2:]
    assert not any(full[2:])


def test_the_lease_is_kept_while_a_place_takes_its_time(
    make_controller, store, regions, jobs, clock
):
    """Four tries of 20 s are longer than a lease."""
    controller = make_controller(in_threads)
    controller.tick()
    leases = []

    def take_long():
        for _ in range(4):
            before = store.read_state()[0].lease.expires_at
            clock.at += LEASE_SECONDS / 2
            assert wait_until(lambda b=before: store.read_state()[0].lease.expires_at > b)
            leases.append(store.read_state()[0].lease.expires_at - clock.at)

    regions[EU].while_asked = take_long
    controller.tick()

    assert len(leases) == 4
    assert min(leases) > LEASE_SECONDS / 2


def test_a_slow_place_is_asked_at_the_same_time_as_the_others(make_controller, regions, jobs):
    controller = make_controller(in_threads)
    controller.tick()
    both = threading.Barrier(2, timeout=5)
    for region in regions.values():
        region.while_asked = both.wait

    controller.tick()

    assert [len(region.asked) for region in regions.values()] == [1, 1]
    assert not both.broken


def test_trouble_with_ec2_is_told_once_for_each_kind_and_not_as_a_place_in_the_queue(
    make_controller, regions, jobs, clock
):
    """AWS's words have a number of the request in them."""
    controller = make_controller()
    controller.tick()
    told = len(controller.story_of(name_of(jobs[EU])))

    for number in range(100):
        kind = AccessError if number % 2 else AwsUnavailableError
        regions[EU].error = kind("ec2:DescribeInstances", f"request {number}")
        make_passes(controller, clock, POLL_SECONDS)

    lines = controller.story_of(name_of(jobs[EU]))[told:]
    assert len(lines) == 2
    assert all(line.startswith("ec2:DescribeInstances: request") for line in lines)


def test_a_place_that_cannot_be_asked_does_not_keep_the_dead_of_another_from_their_end(
    make_controller, store, regions, jobs, clock
):
    controller = make_controller()
    controller.tick()
    regions[EU].error = AccessError("ec2:DescribeInstances", "denied.")
    report(store, jobs[US], "i-0")
    regions[US].set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    outcome = controller.follow([name_of(jobs[US])])[name_of(jobs[US])]

    assert outcome.outcome is Outcome.SUCCEEDED


# -- the dead of an hour -----------------------------------------------------------------------


def test_frequent_looks_leave_the_dead_out_for_ten_minutes_where_they_are_many(
    make_controller, regions, jobs, clock
):
    controller = make_controller()
    controller.tick()
    regions[US].others = CROWD + 1
    regions[EU].others = CROWD

    make_passes(controller, clock, 2 * SPARING_SECONDS)

    looks = zip(regions[US].asked, regions[US].endings, strict=True)
    inclusive = [at for (at, is_full), ending in looks if not is_full and ending is None]
    assert [later - at for at, later in itertools.pairwise(inclusive)] == [SPARING_SECONDS]
    assert set(map(str, regions[EU].endings)) == {"None"}


def test_who_ends_while_the_dead_are_left_out_is_heard_at_once(
    make_controller, regions, jobs, clock, store
):
    controller = make_controller()
    controller.tick()
    regions[US].others = CROWD + 1
    make_passes(controller, clock, 2 * POLL_SECONDS)
    name, machine = name_of(jobs[US]), controller.machine_of(name_of(jobs[US]))
    report(store, jobs[US], machine)

    regions[US].set(machine, "shutting-down")
    make_passes(controller, clock, POLL_SECONDS)
    assert store.read_outcome(jobs[US].jobkey, 1) is None
    regions[US].set(machine, "terminated")
    make_passes(controller, clock, POLL_SECONDS)

    assert regions[US].endings[-1] == {machine}
    assert store.read_outcome(jobs[US].jobkey, 1).outcome is Outcome.SUCCEEDED
    assert name not in controller._ledger.entries
