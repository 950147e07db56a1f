"""Attempts that end without a machine as far as anybody knows."""

from botocore.exceptions import ReadTimeoutError

from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.model.outcome import Budget, Kill, Outcome, Verdict
from airflow_ephemeral_ec2.model.watch import QUIET_SECONDS
from tests.unit.hooks.scripted import (
    forget_launches,
    heir_of,
    name_of,
    outcome_of,
    refusal,
    report,
    take_lock,
)


def unanswered():
    return ReadTimeoutError(endpoint_url="http://ec2")


def follow_for(controller, record, clock, seconds, step=4):
    """Pass by pass until it has an outcome; returns it and the seconds that it took."""
    for passed in range(0, int(seconds) + step, step):
        outcome = outcome_of(controller, record)
        if outcome is not None:
            return outcome, passed
        clock.at += step
    return None, seconds


def test_L3_a_machine_that_works_is_not_ended_when_max_wait_is_over(
    controller, fleet, store, submit, clock
):
    """The triggerer dies between RunInstances and what it writes of it; the heir comes late."""
    record = submit(max_wait="1h")
    controller.tick()
    forget_launches(store, controller)
    fleet.set("i-0", "running")
    take_lock(store, record, "i-0")
    clock.at += 3_700
    heir = heir_of(store, fleet)

    assert outcome_of(heir, record) is None
    report(store, record, "i-0")
    fleet.set("i-0", "terminated")

    assert outcome_of(heir, record).outcome is Outcome.SUCCEEDED
    assert fleet.terminated == []
    assert store.read_kill(name_of(record)) is None


def test_a_machine_that_has_not_begun_is_ended_with_the_verdict_of_its_attempt(
    controller, fleet, store, submit, clock
):
    record = submit(max_wait="1h")
    controller.tick()
    forget_launches(store, controller)
    clock.at += 3_700
    heir = heir_of(store, fleet)

    assert outcome_of(heir, record) is None
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    outcome = outcome_of(heir, record)

    assert outcome.outcome is Outcome.WAIT_TIMEOUT
    assert outcome.reason == "not launched within max_wait (1h 00m)"


def test_L4_no_end_before_ec2_would_show_a_machine_of_a_launch_without_an_answer(
    controller, fleet, submit, clock
):
    """The answer of RunInstances is lost, and asking again is denied."""
    record = submit()
    fleet.refusals = [unanswered(), refusal("UnauthorizedOperation", 403)]

    outcome, seconds = follow_for(controller, record, clock, 2 * QUIET_SECONDS)

    assert outcome.outcome is Outcome.BAD_CONFIG
    assert QUIET_SECONDS <= seconds < QUIET_SECONDS + 20
    assert len(fleet.requests) == 2


def test_L4_B10_a_machine_that_is_shown_late_is_ended_before_its_attempt(
    controller, fleet, submit, clock
):
    """The answer is lost, the attempt is killed, DescribeInstances lags for a minute."""
    record = submit()
    fleet.refusals = [unanswered()]
    controller.tick()
    kill_attempt(controller.store, fleet, record.jobkey, 1, Kill("cancelled"))

    assert follow_for(controller, record, clock, 60)[0] is None
    fleet.set("i-3", "running")
    assert follow_for(controller, record, clock, 20)[0] is None
    assert set(fleet.terminated) == {"i-3"}
    fleet.set("i-3", "terminated", reason="Client.UserInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.KILLED


def test_a_refusal_that_comes_after_an_unclear_answer_is_an_answer(
    controller, fleet, submit, clock
):
    record = submit()
    fleet.refusals = [
        unanswered(), *[refusal("InsufficientInstanceCapacity", 500)] * len(record.placements)
    ]  # fmt: skip

    outcome, seconds = follow_for(controller, record, clock, QUIET_SECONDS)

    assert (outcome.outcome, seconds < 20) == (Outcome.NO_CAPACITY, True)


def test_who_finishes_a_revocation_ends_the_attempt_as_it_was_meant(
    controller, fleet, store, submit, clock
):
    """A crash between the revocation of the start lock and the outcome."""
    record = submit()
    reason = "no EC2 capacity in any of: m7i.large"
    verdict = Verdict(Outcome.NO_CAPACITY, reason, Budget.INFRA)
    store.revoke_start_lock(record, reason, verdict)

    outcome, _ = follow_for(controller, record, clock, 20)

    assert (outcome.outcome, outcome.reason) == (Outcome.NO_CAPACITY, reason)
    assert outcome.budget is Budget.INFRA


def test_a_boot_that_took_too_long_is_that_also_after_a_crash_before_the_kill_was_written(
    controller, fleet, store, submit, clock
):
    """The start lock is revoked; the machine finds that and powers itself off."""
    record = submit()
    controller.tick()
    store.revoke_start_lock(record, "boot_timeout")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    outcome, _ = follow_for(controller, record, clock, 400)

    assert (outcome.outcome, outcome.budget) == (Outcome.BOOT_TIMEOUT, Budget.INFRA)


def test_B6_L30_a_report_from_before_the_start_lock_leaves_no_lock_for_another_machine(
    controller, fleet, store, submit
):
    """EC2 launched two; one is refused the lock by S3, says so and dies."""
    record = submit()
    controller.tick()
    report(store, record, "i-0", exit_code=None, phase="lock", error={"kind": "access"})
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.SETUP_FAILED
    assert store.read_start_lock(record).revoked


def test_B6_L30_the_machine_that_has_the_lock_speaks_after_the_report_of_one_without(
    controller, fleet, store, submit
):
    record = submit()
    controller.tick()
    report(store, record, "i-0", exit_code=None, phase="lock", error={"kind": "access"})
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    fleet.set("i-7", "running")
    take_lock(store, record, "i-7")

    assert outcome_of(controller, record) is None
    report(store, record, "i-7")
    fleet.set("i-7", "terminated")

    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED
