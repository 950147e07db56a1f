"""Counterexamples that the state machine found, as plain steps; each was a fault of the engine."""

import pytest

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
