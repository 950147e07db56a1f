"""Schedules that end a machine when nobody else does: made after a launch, never in its way."""

import dataclasses
import json
from datetime import UTC, datetime

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.lifetime_schedule import (
    LifetimeSchedule,
    NoBackstop,
    find_backstop,
)
from airflow_ephemeral_ec2.hooks.rearming import AT_ONCE, PAUSE_SECONDS
from airflow_ephemeral_ec2.model.lifetimes import reapable_age, scheduled_end
from airflow_ephemeral_ec2.settings import Settings
from tests.unit.hooks.scripted import forget_launches, name_of, outcome_of, refusal, report

ROLE = "arn:aws:iam::123456789012:role/ephemeral-ec2-scheduler"


class Schedules:
    """EventBridge Scheduler's answers, and what it was asked."""

    def __init__(self, error=None):
        self.error, self.made, self.deleted = error, [], []

    @property
    def scheduler(self):
        return self

    def create_schedule(self, **request):
        if self.error:
            raise self.error
        self.made.append(request)

    def delete_schedule(self, Name, GroupName):  # noqa: N803 - as boto3 has it
        if self.error:
            raise self.error
        self.deleted.append((Name, GroupName))


@pytest.fixture
def scheduled(store, fleet, clock):
    """A controller that arms schedules."""
    fleet.clients = fleet.clients or Schedules()
    return Controller(store, lambda *_: fleet, backstop=LifetimeSchedule(ROLE, "ttl"))


def test_a_launch_arms_a_schedule_that_ends_the_machine_after_its_own_watchdog(
    scheduled, fleet, submit, clock
):
    record = submit()

    scheduled.tick()

    [request] = fleet.clients.made
    end = scheduled_end(clock.at, record.spec.max_lifetime_seconds)
    assert request["Name"] == fleet.requests[0]["ClientToken"]
    assert request["GroupName"] == "ttl"
    assert request["ScheduleExpression"].startswith("at(1970-01-01T")
    assert request["ActionAfterCompletion"] == "DELETE"
    assert request["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert request["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    assert request["Target"]["RoleArn"] == ROLE
    assert json.loads(request["Target"]["Input"]) == {"InstanceIds": ["i-0"]}
    lifetime = record.spec.max_lifetime_seconds
    assert clock.at + lifetime + 300 <= end <= clock.at + reapable_age(lifetime) - 300


@pytest.fixture
def adopted(store, fleet, clock, submit):
    """A machine whose controller died after RunInstances, before it made a schedule."""
    fleet.clients = Schedules()
    record = submit()
    dead = Controller(store, lambda *_: fleet)
    dead.tick()
    dead.release()
    fleet.set("i-0", "running")
    assert fleet.clients.made == []
    return record


def test_K14_whoever_adopts_a_machine_arms_it_once(scheduled, fleet, adopted, clock):
    launched_at = clock.at
    clock.at += 30
    for _ in range(40):
        clock.at += 4
        scheduled.tick()

    [request] = fleet.clients.made
    end = scheduled_end(launched_at, adopted.spec.max_lifetime_seconds)
    assert request["Name"] == fleet.requests[0]["ClientToken"]
    assert json.loads(request["Target"]["Input"]) == {"InstanceIds": ["i-0"]}
    moment = datetime.fromtimestamp(end, UTC)
    assert request["ScheduleExpression"] == f"at({moment:%Y-%m-%dT%H:%M:%S})"


def test_K14_a_machine_that_was_armed_before_its_controller_died_keeps_its_schedule(
    scheduled, fleet, adopted
):
    fleet.clients.error = refusal("ConflictException", 409)

    scheduled.tick()

    assert not [one for one in scheduled.story_of(name_of(adopted)) if "scheduled end" in one]


def test_a_controller_that_launched_a_machine_does_not_arm_it_again(
    scheduled, fleet, submit, clock
):
    submit()

    for _ in range(40):
        clock.at += 4
        scheduled.tick()

    assert len(fleet.clients.made) == 1


def test_a_launch_that_is_asked_for_again_after_a_crash_is_armed_once(
    store, fleet, adopted, scheduled, clock
):
    """The controller died before it could even write down that the machine is launched."""
    forget_launches(store, None)

    for _ in range(5):
        clock.at += 4
        scheduled.tick()

    assert len(fleet.tokens) == 1
    assert len(fleet.clients.made) == 1


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_an_adopted_machine_that_ends_is_not_armed(scheduled, fleet, adopted, state):
    fleet.set("i-0", state)

    scheduled.tick()

    assert fleet.clients.made == []


def test_a_machine_that_should_be_gone_already_is_armed_for_a_moment_to_come(
    scheduled, fleet, adopted, clock
):
    """Nobody looked for days; a schedule for yesterday might never fire."""
    clock.at += 1_000_000

    scheduled.tick()

    [request] = fleet.clients.made
    assert request["ScheduleExpression"] > f"at({datetime.fromtimestamp(clock.at, UTC):%Y-%m-%d}"


def test_many_adopted_machines_are_armed_some_at_a_time_and_a_refusal_makes_a_pause(
    store, fleet, submit, clock, scheduled
):
    fleet.clients = Schedules()
    for number in range(2 * AT_ONCE):
        submit(f"{number:040d}")
    dead = Controller(store, lambda *_: fleet)
    while len(fleet.tokens) < 2 * AT_ONCE:
        clock.at += 4
        dead.tick()
    dead.release()

    fleet.clients.error = refusal("ThrottlingException", 429)
    scheduled.tick()
    fleet.clients.error = None
    clock.at += 4
    scheduled.tick()
    assert fleet.clients.made == []

    clock.at += PAUSE_SECONDS
    scheduled.tick()
    assert len(fleet.clients.made) == AT_ONCE


def test_a_machine_that_was_found_again_by_its_tags_has_the_schedule_of_its_token(
    store, fleet, adopted, scheduled
):
    """The queue state was lost, and with it the placement that names the token."""
    store.s3.delete_object(Bucket=store.bucket, Key="test/queue-state.json")
    fleet.shown = {"i-0": name_of(adopted)}
    token = fleet.requests[0]["ClientToken"]
    fleet.machines["i-0"] = dataclasses.replace(fleet.machines["i-0"], client_token=token)
    scheduled.tick()
    scheduled.tick()

    assert [one["Name"] for one in fleet.clients.made] == [token]

    report(store, adopted, "i-0")
    ended = {"state": "terminated", "reason_code": "Client.InstanceInitiatedShutdown"}
    fleet.machines["i-0"] = dataclasses.replace(fleet.machines["i-0"], **ended)
    assert outcome_of(scheduled, adopted).outcome == "succeeded"
    assert fleet.clients.deleted == [(token, "ttl")]


def test_the_schedule_goes_when_the_attempt_ends(scheduled, fleet, submit, store):
    record = submit()
    scheduled.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    found = outcome_of(scheduled, record)

    assert found.outcome == "succeeded"
    assert fleet.clients.deleted == [(fleet.requests[0]["ClientToken"], "ttl")]


@pytest.mark.parametrize(
    "error",
    [refusal("ThrottlingException", 429), refusal("AccessDeniedException", 403)],
    ids=["throttled", "denied"],
)
def test_L34_a_schedule_that_cannot_be_made_is_told_once_and_the_launch_goes_on(
    scheduled, fleet, submit, store, error
):
    """CreateSchedule is throttled or denied after the launch; so is DeleteSchedule at the end."""
    fleet.clients.error = error
    record = submit()
    for _ in range(3):
        scheduled.tick()

    told = [line for line in scheduled.story_of(name_of(record)) if "scheduled end" in line]
    assert len(told) == 1
    assert "the reaper covers it" in told[0]
    assert [one.state for one in fleet.machines.values()] == ["pending"]

    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    assert outcome_of(scheduled, record).outcome == "succeeded"


def test_a_schedule_of_that_name_is_this_machines(scheduled, fleet, submit):
    fleet.clients.error = refusal("ConflictException", 409)
    record = submit()

    scheduled.tick()

    assert not [line for line in scheduled.story_of(name_of(record)) if "scheduled end" in line]


def test_without_a_role_nothing_is_armed(store, fleet, clock, submit):
    fleet.clients = Schedules(error=AssertionError("asked"))
    submit()

    Controller(store, lambda *_: fleet).tick()

    assert len(fleet.requests) == 1


@pytest.mark.parametrize("role", ["", ROLE])
def test_the_setting_alone_decides_whether_schedules_are_made(role):
    settings = Settings(
        environment="demo",
        bucket="records",
        region="us-east-1",
        aws_conn_id="aws_default",
        poll_seconds=4.0,
        scheduler_role_arn=role,
        scheduler_group="ttl",
    )

    backstop = find_backstop(settings)

    assert isinstance(backstop, LifetimeSchedule if role else NoBackstop)
    if role:
        clients = Schedules()
        assert backstop.arm(clients, "token", "i-0", 1_000.0) is None
        [request] = clients.made
        assert (request["GroupName"], request["Target"]["RoleArn"]) == ("ttl", ROLE)
