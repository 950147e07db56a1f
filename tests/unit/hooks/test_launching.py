"""Launches beside trouble: connections that cannot be used, and kills between two questions to EC2."""

import pytest

from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.launch_rate import LaunchRate
from airflow_ephemeral_ec2.hooks.launcher import (
    QUOTA_PAUSE_SECONDS,
    Launcher,
    Pending,
    Progress,
)
from airflow_ephemeral_ec2.hooks.launching import UNUSABLE_LIMIT, UNUSABLE_SECONDS
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import Unavailable
from tests.unit.hooks.scripted import lock_for, name_of, outcome_of, refusal, report


class Connections:
    """Ways to one fleet; the connection ``broken`` fails while it is told to, and counts its uses."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.error: Exception | None = AccessError("connection 'broken'", "is not defined.")
        self.uses = 0

    def __call__(self, connection, _region):
        if connection == "broken":
            self.uses += 1
            if self.error is not None:
                raise self.error
        return self.fleet


@pytest.fixture
def connections(fleet):
    return Connections(fleet)


@pytest.fixture
def controller(store, clock, connections):
    """One that lists the queue in every third pass, as in production."""
    return Controller(store, connections, in_parallel=one_by_one, list_every=3)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AccessError("connection 'broken'", "is not defined."), "is not defined. Will ask again."),
        (AwsUnavailableError("sts:AssumeRole", "timeout"), "sts:AssumeRole: timeout"),
        (ValueError("secret words"), "ValueError (in the log)."),
    ],
    ids=["missing", "timeout", "unknown"],
)
def test_a_connection_that_cannot_be_used_holds_up_only_its_own_jobs(
    controller, connections, fleet, store, submit, error, told
):
    connections.error = error
    first = submit("a" * 40)
    controller.follow([name_of(first)])
    report(store, first, "i-0")
    fleet.set("i-0", "terminated")
    refused = submit("b" * 40, aws_conn_id="broken", priority=900)
    behind = submit("c" * 40)

    ended = controller.follow([name_of(first), name_of(refused), name_of(behind)])

    assert ended[name_of(first)].outcome is Outcome.SUCCEEDED
    assert len(fleet.requests) == 2
    assert told in controller.story_of(name_of(refused))[-1]


def test_a_connection_that_cannot_be_used_is_tried_ever_more_rarely_and_then_works(
    controller, connections, fleet, store, submit, clock
):
    controller.tick()
    submit("a" * 40, aws_conn_id="broken")
    controller.tick()
    assert connections.uses == 1
    later = submit("b" * 40, aws_conn_id="broken")

    controller.follow([name_of(later)])
    assert connections.uses == 1

    clock.at += UNUSABLE_SECONDS
    controller.tick()
    clock.at += UNUSABLE_SECONDS
    controller.tick()
    assert connections.uses == 2

    connections.error = None
    clock.at += UNUSABLE_LIMIT
    controller.tick()
    assert len(fleet.requests) == 2


def test_a_kill_between_two_questions_to_ec2_is_seen_before_the_second(
    controller, fleet, store, submit, clock
):
    """The quota is used up; the task is killed before the queue is listed again."""
    record = submit()
    fleet.refusals = [refusal("VcpuLimitExceeded")]
    controller.tick()
    kill_attempt(store, fleet, record.jobkey, 1, Kill("cancelled"))
    clock.at += QUOTA_PAUSE_SECONDS

    controller.launch()

    assert len(fleet.requests) == 1
    assert store.read_outcome(record.jobkey, 1).outcome is Outcome.KILLED


def test_an_attempt_that_another_controller_has_concluded_is_not_asked_for_again(
    controller, fleet, store, submit, clock
):
    """The other one recorded the outcome and died before it took the entry out of the queue."""
    record = submit()
    fleet.refusals = [refusal("VcpuLimitExceeded")]
    controller.tick()
    clock.at += LEASE_SECONDS + 1
    other = Controller(store, lambda *_: fleet, in_parallel=one_by_one)
    other.tick()
    lock_for(store, record)
    report(store, record, "i-0")
    fleet.set("i-0", "terminated")
    assert outcome_of(other, record).outcome is Outcome.SUCCEEDED
    store.write_entry(plan_entry(record))
    other.release()
    for _ in range(3):
        controller.launch()

    controller.tick()

    assert len(fleet.requests) == 2
    assert store.list_queue().entries == frozenset()


def test_a_start_lock_that_the_machine_of_a_lost_answer_took_is_no_reason_not_to_ask(
    controller, fleet, store, submit, clock
):
    record = submit()
    fleet.refusals = [refusal("InternalError", 500)]
    controller.tick()
    lock_for(store, record)
    clock.at += 5

    controller.launch()

    assert len(fleet.requests) == 2
    assert controller.machine_of(name_of(record)) == "i-0"


class Forgetful:
    """An offering book whose refusals are lifted by another launch while this one looks at them."""

    def __init__(self):
        self.looks = 0

    def find_refusal(self, offering):
        self.looks += 1
        if self.looks > 1:
            return None
        return Unavailable(until=2_000.0, code="InsufficientInstanceCapacity")

    def forget_refusal(self, offering):
        pass

    def remember_refusal(self, offering, code, seconds):
        pass


def test_refusals_that_are_lifted_while_they_are_looked_at_mean_asking_again_at_once(
    fleet, store, clock, make_record
):
    record = make_record(instance_types=["m7i.large"], subnets=["subnet-0a1"])
    launcher = Launcher(fleet, store, LaunchRate(monotonic=clock.now), Forgetful())

    answer = launcher.launch(record, Progress(may_have_asked=False))

    assert isinstance(answer, Pending)
    assert (answer.placement, answer.seconds) == (0, 1.0)
    assert fleet.requests == []
