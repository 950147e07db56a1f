"""Hundreds of machines die at once: they are concluded together, and nobody else waits for it."""

import threading

import pytest

from airflow_ephemeral_ec2.hooks.batches import BATCH_SIZE, PASS_SECONDS
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import ConsoleOutput
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.parallel import in_threads, one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import KEPT_SECONDS, LEASE_SECONDS
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.queue import Lease
from tests.unit.hooks.scripted import name_of, report

DEAD = 3 * BATCH_SIZE


class CostlyBucket:
    """Each write takes time, and each read if a test says so."""

    def __init__(self, s3, clock, seconds):
        self._s3, self._clock, self._seconds = s3, clock, seconds
        self.when_written, self.read_seconds = lambda key: None, 0.0

    def __getattr__(self, name):
        return getattr(self._s3, name)

    def get_object(self, **request):
        self._clock.at += self.read_seconds
        return self._s3.get_object(**request)

    def put_object(self, **request):
        self._clock.at += self._seconds
        answer = self._s3.put_object(**request)
        self.when_written(request["Key"])
        return answer


@pytest.fixture
def bucket(store, clock):
    """A batch of endings takes longer than a pass may."""
    return CostlyBucket(store.s3, clock, PASS_SECONDS / BATCH_SIZE)


@pytest.fixture
def make_controller(store, bucket, clock, fleet):
    def make(in_parallel=one_by_one):
        host = JobStore(bucket, store.bucket, store.environment)
        host.clock = clock
        return Controller(host, lambda *_: fleet, in_parallel=in_parallel)

    return make


@pytest.fixture
def die(store, fleet):
    def die(records, *, reported=True):
        for record in records:
            machine = f"i-{int(record.jobkey)}"
            if reported:
                report(store, record, machine)
            fleet.set(machine, "terminated", reason="Client.InstanceInitiatedShutdown")

    return die


def count_outcomes(store):
    return sum(key.endswith("outcome.json") for key in store.s3.objects)


def test_a_mass_of_endings_does_not_hold_up_a_launch(
    make_controller, store, fleet, launch_many, die, submit
):
    die(launch_many(DEAD))
    submit("f" * 40, limit=10_000)

    make_controller().tick()

    assert len(fleet.requests) == 1
    assert count_outcomes(store) == BATCH_SIZE


def test_what_one_pass_had_no_time_for_follows_in_the_next(
    make_controller, store, launch_many, die
):
    records, controller = launch_many(DEAD), make_controller()
    names = [name_of(record) for record in records]
    die(records)

    told = [len(controller.follow(names)) for _ in range(DEAD // BATCH_SIZE)]

    assert told == [BATCH_SIZE, 2 * BATCH_SIZE, 3 * BATCH_SIZE]
    assert store.read_state()[0].entries == {}


def test_endings_are_concluded_by_several_threads(make_controller, store, bucket, launch_many, die):
    die(launch_many(DEAD))
    threads = set()
    bucket.when_written = lambda key: threads.add(threading.get_ident())
    controller = make_controller(in_threads)

    for _ in range(DEAD // BATCH_SIZE):
        controller.tick()

    assert len(threads) > 2
    assert count_outcomes(store) == DEAD
    assert store.read_state()[0].entries == {}
    assert controller.has_work is False


def test_the_lease_is_renewed_before_much_is_concluded(
    make_controller, store, bucket, clock, launch_many, die
):
    """A little more than half of it is left: as long as a pass begins, that is enough."""
    records, controller, left = launch_many(DEAD), make_controller(), []
    controller.tick()
    die(records)
    clock.at = store.read_state()[0].lease.expires_at - LEASE_SECONDS / 2 - 1
    bucket.when_written = lambda key: left.append(store.read_state()[0].lease.expires_at - clock.at)

    controller.tick()

    assert min(left) > KEPT_SECONDS - PASS_SECONDS


def test_who_loses_the_lease_while_much_is_concluded_begins_nothing_more(
    make_controller, store, bucket, clock, launch_many, die, submit, fleet
):
    """A batch takes longer than the lease lasts, and another has taken over."""
    die(launch_many(DEAD))
    killed = submit("f" * 40)
    store.write_kill(name_of(killed), Kill("cancelled"))
    taken = []

    def take_over(key):
        if count_outcomes(store) == BATCH_SIZE // 2 and not taken:
            taken.append(key)
            clock.at += LEASE_SECONDS
            state, etag = store.read_state()
            lease = Lease(holder="somebody else", expires_at=clock.at + LEASE_SECONDS)
            assert store.write_state(state.model_copy(update={"lease": lease}), etag)

    bucket.when_written = take_over
    make_controller().tick()

    assert taken
    assert count_outcomes(store) == BATCH_SIZE
    assert store.read_outcome(killed.jobkey, 1) is None


def test_who_waits_for_last_words_does_not_keep_the_others_from_their_end(
    make_controller, store, fleet, clock, launch_many, die
):
    """The first hundreds left no report, and their console is not there yet."""
    records = launch_many(DEAD)
    silent, spoken = records[: 2 * BATCH_SIZE], records[2 * BATCH_SIZE :]
    die(silent, reported=False)
    die(spoken)
    fleet.console = ConsoleOutput("", None)
    read = fleet.read_console

    def read_slowly(instance_id):
        clock.at += PASS_SECONDS / BATCH_SIZE
        return read(instance_id)

    fleet.read_console = read_slowly
    controller = make_controller()

    for _ in range(3):
        controller.tick()

    assert count_outcomes(store) == len(spoken)


def test_a_mass_of_kills_before_the_launch_does_not_hold_up_a_launch(
    make_controller, store, fleet, submit
):
    """Somebody clears a whole DAG that waits."""
    for number in range(2 * BATCH_SIZE):
        killed = submit(f"{number:040d}", limit=10_000)
        store.write_kill(name_of(killed), Kill("cancelled"))
    wanted = submit("f" * 40, limit=10_000, priority=900)

    make_controller().tick()

    assert wanted.placements[0].client_token in [r["ClientToken"] for r in fleet.requests]
    assert count_outcomes(store) < 2 * BATCH_SIZE


def test_the_lease_is_kept_while_many_outcomes_are_read(store, bucket, clock, fleet):
    """Airflow was down for a night: all that its tasks wait for is over."""
    host = JobStore(bucket, store.bucket, store.environment)
    host.clock = clock
    controller = Controller(host, lambda *_: fleet, in_parallel=one_by_one)
    bucket.read_seconds = LEASE_SECONDS / DEAD

    controller.follow([f"{number:040d}-a1" for number in range(DEAD)])

    assert clock.at >= 1_000 + LEASE_SECONDS
    assert store.read_state()[0].lease.expires_at - clock.at > LEASE_SECONDS / 2
