"""When a machine is expected to end: as long after its launch as the last one of the same job."""

import pytest

from airflow_ephemeral_ec2.model.outcome import Kill
from tests.unit.hooks.scripted import name_of, refusal, report

LIVED = 300.0
WITHIN = 4.0


@pytest.fixture
def lived(controller, fleet, store, submit, clock):
    """A job has run once, for five minutes."""
    record = submit("a" * 40)
    controller.tick()
    clock.at += LIVED
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    controller.tick()
    return record


@pytest.mark.parametrize(
    ("seconds", "is_expected"),
    [
        (0.0, False),
        (LIVED - WITHIN - 1, False),
        (LIVED - WITHIN, True),
        (LIVED, True),
        (LIVED + WITHIN, True),
        (LIVED + WITHIN + 1, False),
    ],
)
def test_the_end_is_expected_around_the_time_that_the_job_took_before(
    controller, submit, clock, lived, seconds, is_expected
):
    submit("b" * 40)
    controller.tick()

    clock.at += seconds

    assert controller.expects_end(WITHIN) is is_expected


@pytest.mark.parametrize("change", [{"job": "member"}, {"payer": "zeta"}])
def test_another_job_tells_nothing(controller, submit, clock, lived, change):
    submit("b" * 40, **change)
    controller.tick()

    clock.at += LIVED

    assert controller.expects_end(WITHIN) is False


def test_nothing_is_expected_of_a_job_that_is_not_known(controller, submit, clock):
    submit()
    controller.tick()

    clock.at += LIVED

    assert controller.expects_end(WITHIN) is False


def test_nothing_is_expected_of_an_attempt_without_a_machine(
    controller, fleet, submit, clock, lived
):
    fleet.refusals = [refusal("VcpuLimitExceeded")]
    waiting = submit("b" * 40)
    controller.tick()

    clock.at += LIVED

    assert controller.machine_of(name_of(waiting)) is None
    assert controller.expects_end(WITHIN) is False


def test_the_last_end_counts(controller, fleet, store, submit, clock, lived):
    short = submit("b" * 40)
    controller.tick()
    clock.at += 60
    report(store, short, "i-1")
    fleet.set("i-1", "terminated", reason="Client.InstanceInitiatedShutdown")
    controller.tick()
    submit("c" * 40)
    controller.tick()

    clock.at += 60
    assert controller.expects_end(WITHIN) is True
    clock.at += LIVED - 60
    assert controller.expects_end(WITHIN) is False


def test_an_end_without_a_machine_says_nothing_about_how_long_a_job_takes(
    controller, store, submit, clock, lived
):
    killed = submit("b" * 40)
    clock.at += 30
    store.write_kill(name_of(killed), Kill("cancelled"))
    controller.tick()
    submit("c" * 40)
    controller.tick()

    clock.at += LIVED

    assert store.read_outcome(killed.jobkey, 1) is not None
    assert controller.expects_end(WITHIN) is True
