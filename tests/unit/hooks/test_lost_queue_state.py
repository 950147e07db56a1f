"""The queue state is lost or damaged under a controller that is alive, or that is new."""

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.model.outcome import Outcome
from airflow_ephemeral_ec2.model.queue import Lease, QueueState
from tests.unit.hooks.scripted import ScriptedFleet, name_of, outcome_of, report, wait_until

KEY = "test/queue-state.json"
POLL_SECONDS = 5
LOST = pytest.mark.parametrize(
    "body",
    [None, b"", b"{", b'{"version": 9}', b"[]", b"{}", b'{"version": 1, "entries": {}}'],
    ids=["deleted", "empty", "cut off", "another version", "not ours", "no fields", "by hand"],
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


def test_the_lease_is_kept_while_a_region_says_late_what_is_out(
    store, fleet, submit, clock, lose, running
):
    """It takes its four tries, and another controller would like to act."""
    submit("b" * 40, region="eu-central-1")
    lose(None)
    leases, find_machines = [], fleet.find_machines

    def find_late():
        for _ in range(4):
            clock.at += LEASE_SECONDS / 2
            assert wait_until(lambda: lease_of(store) > clock.at + LEASE_SECONDS / 2)
            leases.append(lease_of(store))
        return find_machines()

    def fleet_for(_connection, region):
        if region != "eu-central-1":
            return fleet
        late = ScriptedFleet()
        late.find_machines = find_late
        return late

    controller = Controller(store, fleet_for)

    controller.tick()

    assert len(leases) == 4
    assert not store.read_state()[0].is_rebuilt
    assert store.read_state()[0].entries[name_of(running)].instance_id == "i-0"


def lease_of(store):
    state, _ = store.read_state()
    return state.lease.expires_at


def test_what_ec2_has_said_is_asked_again_when_the_state_was_read_anew(
    store, fleet, submit, clock, lose, running
):
    """One region has answered; then somebody takes the lease and dies, with a state of its own."""
    submit("b" * 40, region="eu-central-1")
    lose(None)
    mute = ScriptedFleet()
    mute.is_blind = True
    controller = Controller(
        store, lambda _, region: mute if region == "eu-central-1" else fleet, in_parallel=one_by_one
    )
    controller.tick()
    _, etag = store.read_state()
    lease = Lease(holder="somebody else", expires_at=clock.at + LEASE_SECONDS)
    assert store.write_state(QueueState(is_rebuilt=True, lease=lease), etag)
    for _ in range(2):
        clock.at += LEASE_SECONDS + 1
        controller.tick()
    mute.is_blind = False

    controller.tick()

    assert store.read_state()[0].entries[name_of(running)].instance_id == "i-0"
    assert len(fleet.requests) == 1


def test_an_end_of_the_controllers_own_is_not_told_as_a_kill_after_the_state_was_lost(
    controller, fleet, store, clock, lose, running
):
    """A machine that never boots is being ended; the state is lost before it is dead."""
    clock.at += 601
    controller.tick()
    assert store.read_kill(name_of(running)).reason == "boot_timeout"
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    lose(b"{")
    heir = Controller(store, lambda *_: fleet, in_parallel=one_by_one)

    for _ in range(80):
        heir.tick()
        clock.at += POLL_SECONDS

    assert store.read_outcome(running.jobkey, 1).outcome == Outcome.BOOT_TIMEOUT
