"""Counterexamples that the state machine found, as plain steps; each was a fault of the engine."""

import json

import pytest

from airflow_ephemeral_ec2 import contract
from tests.state_machine.process import Fault
from tests.state_machine.world import World

MEMBER, CLAIMS, REPORTS = 0, 1, 2


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def run_to_the_end(machine):
    for _ in range(12):
        machine.settle()
        machine.act()
    assert machine.state == "terminated"


def outcomes(world):
    return [str(record.outcome) for record in world.oracle.outcomes.values()]


def test_the_report_is_found_after_queue_state_and_instance_record_are_lost(world):
    world.open(MEMBER)
    world.tick(0)
    (machine,) = world.ec2.own
    run_to_the_end(machine)
    machine.is_evicted = True
    world.change_aws("queue state damaged", 0)

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["succeeded"]


def test_the_report_of_a_second_machine_that_ec2_no_longer_shows_is_found(world):
    world.open(MEMBER)
    world.tick(0, Fault("double", "launch", 0))
    first, second = world.ec2.own
    run_to_the_end(second)
    second.is_evicted = True
    run_to_the_end(first)

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["succeeded"]
    assert world.oracle.executions.total() == 1


@pytest.mark.parametrize("kind", ["crash before", "crash after", "answer lost", "retried"])
@pytest.mark.parametrize("put", range(6))
@pytest.mark.parametrize("is_lost", [False, True])
def test_every_outcome_has_its_history_whenever_its_writer_dies(world, kind, put, is_lost):
    world.open(MEMBER)
    world.tick(0)
    run_to_the_end(world.ec2.own[0])
    world.advance(65)
    world.tick(0, Fault(kind, "put", put))
    if is_lost:
        # Then nobody judges the machine again: the entry of what has an outcome is taken away.
        world.change_aws("queue state damaged", 0)

    world.settle()

    # The oracle counts the history records at the end.
    assert world.oracle.violations == []
    assert outcomes(world) == ["succeeded"]


def test_a_kill_does_not_end_an_attempt_whose_unseen_machine_works(world):
    world.ec2.is_lagging = True
    world.open(MEMBER)
    world.tick(0, Fault("answer lost", "launch", 0))
    (machine,) = world.ec2.own
    machine.settle()
    for _ in range(4):
        machine.act()
    assert world.oracle.executions.total() == 1
    world.kill(MEMBER)

    world.tick(0)

    assert world.oracle.violations == []
    assert outcomes(world) == []
    world.settle()
    assert world.oracle.violations == []


def test_the_reaper_touches_no_other_environment_even_if_the_filter_does_nothing(world):
    world.open(MEMBER)
    world.tick(0)
    world.launch_foreign()
    world.ec2.ignores_filters = True

    for _ in range(4):
        world.advance(100_000)
        world.reap()

    assert world.oracle.violations == []
    mine, foreign = world.ec2.machines.values()
    assert (mine.state, foreign.state) == ("shutting-down", "pending")


def test_a_success_is_stale_once_what_it_read_has_been_written_again(world):
    world.open(MEMBER)
    world.settle()
    world.open(REPORTS)
    world.settle()
    assert outcomes(world) == ["succeeded", "succeeded"]

    world.epochs[MEMBER] += 1
    world.open(MEMBER)
    world.settle()

    # The oracle looks for the mark when the newer input is recorded.
    assert world.oracle.violations == []
    assert [r.makes_stale for r in world.oracle.outcomes.values()][-1] == (
        "acme/reports 2026-03-01",
    )


@pytest.mark.parametrize("killed", [(), (1,), (1, 2)], ids=["nobody", "before", "before and after"])
def test_a_success_is_stale_when_its_input_was_written_again_while_it_ran(world, killed):
    world.open(MEMBER)
    world.settle()
    world.open(REPORTS)
    world.tick(0)
    reports = world.ec2.own[-1]
    world.epochs[MEMBER] += 1
    world.open(MEMBER)
    if 1 in killed:
        world.restart(0)
        world.advance(65)
    world.tick(0)
    run_to_the_end(world.ec2.own[-1])
    world.advance(65)
    world.tick(0)
    if 2 in killed:
        world.restart(0)
    assert outcomes(world) == ["succeeded", "succeeded"]
    assert reports.is_alive

    world.settle()

    assert world.oracle.violations == []
    last = list(world.oracle.outcomes.values())[-1]
    assert (last.job, last.stale_inputs) == ("reports", ("acme/member 2026-03-01",))


def test_a_success_that_another_controller_saw_undone_is_not_believed_any_more(world):
    world.open(MEMBER)
    world.settle()
    world.open(REPORTS)
    world.tick(0)
    world.release(0)
    world.epochs[MEMBER] += 1
    world.open(MEMBER)
    world.kill(MEMBER)
    world.tick(1)
    world.release(1)
    assert outcomes(world) == ["succeeded", "killed"]

    world.epochs[REPORTS] += 1
    world.open(REPORTS)
    for _ in range(4):
        for machine in world.ec2.own:
            machine.settle()
        world.advance(65)
        world.tick(0)

    # The second try of reports waits for a success of member, and has no machine.
    assert world.oracle.violations == []
    assert outcomes(world) == ["succeeded", "killed", "superseded"]
    assert [machine.attempt[1] for machine in world.ec2.own] == [1, 1]


@pytest.mark.parametrize("put", [2, 3])
def test_an_attempt_that_never_came_into_the_queue_ends_though_its_record_is_not_ours(world, put):
    world.open(CLAIMS, Fault("crash before", "put", put))
    world.tamper("launch record", 0)

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered", "succeeded"]


def work(machine):
    """Let a machine take the start lock and begin the work."""
    for _ in range(4):
        machine.settle()
        machine.act()
    assert machine.may_work
    assert machine.is_holder


def begin_work(world):
    """Run the member job until its machine works."""
    world.open(MEMBER)
    world.tick(0)
    work(world.ec2.own[0])


def test_a_success_whose_start_lock_was_written_over_is_none(world):
    begin_work(world)
    world.tamper("start lock", 0)

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered"]


@pytest.mark.parametrize("is_hung", [True, False], ids=["it hangs", "it works"])
@pytest.mark.parametrize("is_hidden", [True, False], ids=["hidden", "shown"])
def test_an_attempt_is_not_over_while_a_machine_lives_whose_lock_was_written_over(
    world, is_hung, is_hidden
):
    """EC2 launched two; the other one reports that it was locked out, and is dead first."""
    world.open(MEMBER)
    world.tick(0, Fault("double", "launch", 0))
    first, second = world.ec2.own
    work(second)
    second.is_hung = is_hung
    if is_hidden:
        second.hidden_until = world.clock.now + 90
    world.tamper("start lock", 0)
    run_to_the_end(first)
    world.advance(65)
    world.tick(0)
    assert outcomes(world) == []

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered"]


@pytest.mark.parametrize("is_hung", [True, False], ids=["it hangs", "it works"])
@pytest.mark.parametrize("is_lost", [True, False], ids=["no queue state", "queue state"])
def test_an_attempt_of_which_nothing_can_be_read_is_not_over_while_its_machine_lives(
    world, is_hung, is_lost
):
    """Nobody alive has ever read where its machine is."""
    begin_work(world)
    world.ec2.own[0].is_hung = is_hung
    for kind in ("launch record", "queue entry"):
        world.tamper(kind, 0)
    if is_lost:
        world.change_aws("queue state damaged", 0)
    world.restart(0)
    for _ in range(12):
        world.advance(65)
        world.tick(0)
    assert outcomes(world) == []

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered"]


def test_an_attempt_that_was_launched_unseen_does_not_end_when_its_lock_was_written_over(world):
    """EC2 does not show the machine yet, the queue state is lost, and the task is cleared."""
    world.ec2.is_lagging = True
    begin_work(world)
    world.tamper("start lock", 0)
    world.change_aws("queue state damaged", 0)
    world.restart(0)
    world.advance(61)
    world.epochs[MEMBER] += 1
    world.open(MEMBER)
    world.tick(0)
    assert outcomes(world) == []

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered", "succeeded"]


def test_a_machine_that_hangs_ends_before_an_attempt_whose_lock_names_nobody_we_know(world):
    world.ec2.is_lagging = True
    world.open(MEMBER)
    world.tick(0, Fault("answer lost", "launch", 0))
    (record,) = world.oracle.records()
    key = contract.start_lock_key("test", record.jobkey, record.attempt, record.nonce)
    world.s3.objects[key] = json.dumps({"instance_id": "i-0bad"}).encode()
    world.tampered.append(key)
    world.ec2.own[0].is_hung = True
    world.epochs[MEMBER] += 1
    world.open(MEMBER)
    world.tick(0)
    for _ in range(80):
        world.advance(65)
        world.tick(0)

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["superseded", "succeeded"]


def test_rubbish_in_the_place_of_a_refusal_ends_the_machine_that_nobody_was_told_of(world):
    """The answer to the first placement was lost; then somebody says that it was refused."""
    world.open(MEMBER)
    world.tick(0, Fault("answer lost", "launch", 0))
    (record,) = world.oracle.records()
    key = contract.refused_key("test", record.jobkey, record.attempt, 0)
    world.s3.objects[key] = b'{"code": "Insuff'
    world.tampered.append(key)
    work(world.ec2.own[0])

    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered"]
    assert len(world.ec2.own) == 1


@pytest.mark.parametrize("number", range(5))
def test_the_end_of_a_tampered_attempt_is_none_of_a_kill_after_a_crash(world, number):
    """The start lock was revoked, and the controller died before it recorded the outcome."""
    world.change_aws("quota", 0)
    world.open(CLAIMS)
    world.advance(65)
    world.tick(0)
    world.tamper("refusal", 0)

    world.restart(0)
    world.advance(65)
    world.tick(0, Fault("crash before", "put", number))
    world.settle()

    assert world.oracle.violations == []
    assert outcomes(world) == ["tampered"]
