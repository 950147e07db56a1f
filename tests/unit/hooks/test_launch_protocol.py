"""The launch protocol, error class by error class, over a scripted fleet."""

import itertools

import pytest
from botocore.exceptions import ReadTimeoutError

from airflow_ephemeral_ec2.hooks.aws_errors import UnreadableAnswerError
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.model.outcome import Observation, Outcome
from airflow_ephemeral_ec2.model.queue import (
    UNAVAILABLE_SECONDS,
    QueueState,
    find_refusal,
    forget_refusal,
    remember_refusal,
)
from tests.unit.hooks.scripted import name_of, outcome_of, refusal

NO_CAPACITY = refusal("InsufficientInstanceCapacity", 500)
ONE = {"instance_types": ["m7i.large"], "subnets": ["subnet-0a1"]}
TWO = {"instance_types": ["m7i.large", "m6i.large"], "subnets": ["subnet-0a1"]}


def asked(fleet):
    """Return type and subnet of each request, in order."""
    return [
        (request["InstanceType"], request["NetworkInterfaces"][0]["SubnetId"])
        for request in fleet.requests
    ]


def pauses_within(seconds, controller, fleet, clock):
    """Let time go by; return the seconds between each two requests to EC2."""
    times = []
    for _ in range(seconds):
        before = len(fleet.requests)
        controller.tick()
        if len(fleet.requests) > before:
            times.append(clock.at)
        clock.at += 1
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def tokens(fleet):
    return [request["ClientToken"] for request in fleet.requests]


def test_an_offering_that_refused_one_job_is_passed_over_by_the_next(
    controller, fleet, store, submit
):
    submit("a" * 40, **TWO)
    fleet.refusals = [NO_CAPACITY]
    controller.tick()
    second = submit("b" * 40, **TWO)

    controller.tick()

    assert [kind for kind, _ in asked(fleet)] == ["m7i.large", "m6i.large", "m6i.large"]
    assert store.read_refusals(second) == {0: "remembered:InsufficientInstanceCapacity"}


def test_a_refusal_is_forgotten_after_some_minutes(controller, fleet, submit, clock):
    submit("a" * 40, **TWO)
    fleet.refusals = [NO_CAPACITY]
    controller.tick()
    clock.at += UNAVAILABLE_SECONDS + 1
    submit("b" * 40, **TWO)

    controller.tick()

    assert [kind for kind, _ in asked(fleet)] == ["m7i.large", "m6i.large", "m7i.large"]


def test_memory_alone_ends_nobody_and_the_most_important_job_asks_first(
    controller, fleet, store, submit, clock
):
    first = submit("a" * 40, **ONE)
    fleet.refusals = [NO_CAPACITY]
    assert outcome_of(controller, first).outcome is Outcome.NO_CAPACITY
    low = submit("b" * 40, priority=100, **ONE)
    high = submit("c" * 40, priority=900, **ONE)

    assert outcome_of(controller, low) is None
    assert len(fleet.requests) == 1
    assert "no EC2 capacity just now" in controller.story_of(name_of(high))[-1]
    clock.at += UNAVAILABLE_SECONDS + 1
    fleet.refusals = [NO_CAPACITY]
    ended = controller.follow([name_of(low), name_of(high)])

    assert len(fleet.requests) == 2
    assert ended[name_of(high)].outcome is Outcome.NO_CAPACITY
    assert name_of(low) not in ended


def test_a_placement_that_may_have_been_asked_is_never_passed_over(
    controller, fleet, store, submit, clock
):
    """Another controller died after it asked: its machine may be out there."""
    record = submit("a" * 40, **TWO)
    fleet.refusals = [ReadTimeoutError(endpoint_url="x")]
    controller.tick()
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda _connection, _region: fleet)
    heir._ledger.take_lease()
    heir._ledger.remember_refusal(record.offering(0), "InsufficientInstanceCapacity", 180.0)
    heir._ledger.save()

    heir.tick()

    assert [kind for kind, _ in asked(fleet)] == ["m7i.large", "m7i.large"]
    assert len(set(tokens(fleet))) == 1


def test_L18_a_quota_holds_all_behind_and_the_first_in_line_asks_first(
    controller, fleet, submit, clock
):
    """VcpuLimitExceeded for the most important job; then there is room for one."""
    high = submit("a" * 40, priority=900, **ONE)
    low = submit("b" * 40, priority=100, **ONE)
    other = submit("c" * 40, priority=50, instance_types=["p5.16xlarge"], subnets=["subnet-0a1"])
    fleet.refusals = [refusal("VcpuLimitExceeded")]

    controller.tick()

    assert [kind for kind, _ in asked(fleet)] == ["m7i.large", "p5.16xlarge"]
    assert controller.machine_of(name_of(other)) == "i-0"
    assert "as a job before found" in controller.story_of(name_of(low))[-1]
    clock.at += 61
    fleet.refusals = [None, refusal("VcpuLimitExceeded")]
    controller.tick()
    assert controller.machine_of(name_of(high)) == "i-1"
    assert controller.machine_of(name_of(low)) is None


def test_L18_who_was_refused_gives_its_room_to_a_more_important_one(
    controller, fleet, submit, clock, store
):
    """VcpuLimitExceeded for the only job; a more important one comes before it is asked again."""
    low = submit("a" * 40, limit=2, priority=100, **ONE)
    fleet.refusals = [refusal("VcpuLimitExceeded")]
    controller.tick()
    high = submit("b" * 40, limit=2, priority=900, **ONE)

    clock.at += 61
    controller.tick()

    assert controller.machine_of(name_of(high)) == "i-0"
    assert store.read_state()[0].entries[name_of(low)].stage == "waiting"


def test_L18_who_takes_over_lets_the_more_important_ask_first(fleet, store, submit, clock):
    """As above, and the controller that was refused has died."""
    first = Controller(store, lambda *_: fleet, in_parallel=one_by_one)
    low = submit("a" * 40, priority=100, **ONE)
    fleet.refusals = [refusal("VcpuLimitExceeded")]
    first.tick()
    first.tick()
    high = submit("b" * 40, priority=900, **ONE)
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda *_: fleet, in_parallel=one_by_one)
    fleet.refusals = [None, refusal("VcpuLimitExceeded")]

    heir.tick()

    assert heir.machine_of(name_of(high)) == "i-0"
    assert heir.machine_of(name_of(low)) is None


def test_L18_the_pause_after_a_quota_grows(controller, fleet, submit, clock):
    submit("a" * 40, **ONE)
    fleet.refusals = [refusal("VcpuLimitExceeded")] * 4

    assert pauses_within(500, controller, fleet, clock) == [60, 120, 240]


def test_L18_a_remembered_spot_quota_goes_on_to_on_demand(controller, fleet, store, submit):
    """MaxSpotInstanceCountExceeded for one job; the next does not ask for spot at all."""
    submit("a" * 40, capacity_type="spot-then-on-demand", **TWO)
    second = submit("b" * 40, capacity_type="spot-then-on-demand", **TWO)
    fleet.refusals = [refusal("MaxSpotInstanceCountExceeded")]

    controller.tick()

    markets = ["InstanceMarketOptions" in request for request in fleet.requests]
    assert markets == [True, False, False]
    code = "remembered:MaxSpotInstanceCountExceeded"
    assert store.read_refusals(second) == {0: code, 1: code}


def test_L17_when_ec2_throttles_nobody_passes_the_first_in_line(controller, fleet, submit, clock):
    """RequestLimitExceeded for the most important job; EC2 would serve the next one."""
    high = submit("a" * 40, priority=900, **ONE)
    low = submit("b" * 40, priority=100, **ONE)
    fleet.refusals = [refusal("RequestLimitExceeded", 503)]

    controller.tick()
    assert len(fleet.requests) == 1
    clock.at += 2
    controller.tick()
    assert controller.machine_of(name_of(high)) == "i-0"
    assert controller.machine_of(name_of(low)) is None
    clock.at += 2
    controller.tick()

    assert controller.machine_of(name_of(low)) == "i-1"
    assert len(fleet.requests) == 3


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="x"),
        refusal("InternalError", 500),
        refusal("", 502),
        UnreadableAnswerError("no instance"),
    ],
    ids=["timeout", "500", "502", "unreadable"],
)
def test_L4_L6_L9_L30_an_answer_that_says_nothing_is_asked_again_and_nothing_else(
    controller, fleet, submit, clock, error
):
    """RunInstances answers with a timeout, a 5xx or no instance, several times."""
    record = submit(**TWO)
    fleet.refusals = [error] * 4
    for _ in range(5):
        controller.tick()
        clock.at += 31

    assert len(set(tokens(fleet))) == 1
    assert {kind for kind, _ in asked(fleet)} == {"m7i.large"}
    assert controller.machine_of(name_of(record)) == "i-0"


def test_the_pause_grows_while_ec2_says_nothing(controller, fleet, submit, clock):
    submit(**ONE)
    fleet.refusals = [refusal("InternalError", 500)] * 100

    pauses = pauses_within(300, controller, fleet, clock)
    assert pauses[:5] == [2, 4, 8, 16, 30]
    assert set(pauses[5:]) == {30}


def test_L18_a_spot_quota_goes_on_to_on_demand_and_never_back(controller, fleet, store, submit):
    """MaxSpotInstanceCountExceeded for a row that falls back to on-demand."""
    record = submit(capacity_type="spot-then-on-demand", **TWO)
    fleet.refusals = [refusal("MaxSpotInstanceCountExceeded")]

    controller.tick()

    markets = ["InstanceMarketOptions" in request for request in fleet.requests]
    assert markets == [True, False]
    assert set(store.read_refusals(record)) == {0, 1}
    assert controller.machine_of(name_of(record)) == "i-0"


def test_L18_an_on_demand_quota_waits_and_says_so(controller, fleet, submit, clock):
    """VcpuLimitExceeded, twice."""
    record = submit(**TWO)
    fleet.refusals = [refusal("VcpuLimitExceeded")] * 2
    controller.tick()
    controller.tick()
    assert len(fleet.requests) == 1
    assert "Service Quotas" in controller.story_of(name_of(record))[-1]
    clock.at += 61
    controller.tick()
    clock.at += 61
    controller.tick()
    assert len(fleet.requests) == 2
    clock.at += 61
    controller.tick()

    assert len(set(tokens(fleet))) == 1
    assert controller.machine_of(name_of(record)) == "i-0"


def test_L14_a_token_with_other_parameters_is_looked_up_then_ends_as_tampered(
    controller, fleet, submit, clock
):
    """IdempotentParameterMismatch, and EC2 shows no machine of the token."""
    record = submit(**TWO)
    fleet.refusals = [refusal("IdempotentParameterMismatch")] * 20
    assert outcome_of(controller, record) is None
    for _ in range(9):
        clock.at += 31
        assert outcome_of(controller, record) is None
    clock.at += 31

    found = outcome_of(controller, record)

    assert found.outcome is Outcome.TAMPERED
    assert len(set(tokens(fleet))) == 1


def test_L14_the_machine_of_a_mismatched_token_is_adopted_if_it_is_the_right_one(
    controller, fleet, submit
):
    """IdempotentParameterMismatch, and EC2 shows the machine."""
    record = submit(**ONE)
    fleet.set("i-7", "running")
    fleet.tokens[record.placements[0].client_token] = "i-7"
    fleet.refusals = [refusal("IdempotentParameterMismatch")]

    controller.tick()

    assert controller.machine_of(name_of(record)) == "i-7"


def test_L15_a_token_whose_machine_has_ended_leads_to_its_ending(controller, fleet, submit):
    """IdempotentInstanceTerminated after a crash."""
    record = submit(**TWO)
    fleet.set("i-7", "terminated", reason="Client.InstanceInitiatedShutdown")
    fleet.tokens[record.placements[0].client_token] = "i-7"
    fleet.refusals = [refusal("IdempotentInstanceTerminated")]
    controller.tick()

    assert outcome_of(controller, record).outcome is Outcome.NEVER_STARTED
    assert len(fleet.requests) == 1


def test_L15_a_token_whose_dead_machine_is_not_shown_is_not_launched_again(
    controller, fleet, submit
):
    """IdempotentInstanceTerminated, and EC2 has forgotten the machine."""
    record = submit(**TWO)
    fleet.refusals = [refusal("IdempotentInstanceTerminated")]

    found = outcome_of(controller, record)

    assert (found.outcome, found.budget) == ("never_started", "infra")
    assert len(fleet.requests) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"instance_type": "x2gd.metal"},
        {"subnet": "subnet-0ffff"},
        {"client_token": "somebody's"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_machine_that_was_not_asked_for_is_ended_and_named(controller, fleet, submit, given):
    record = submit(**ONE)
    fields = {"instance_type": "m7i.large", "availability_zone": "us-east-1a"} | given
    fleet.machines["i-9"] = Observation("i-9", "pending", **fields)
    fleet.tokens[record.placements[0].client_token] = "i-9"
    controller.tick()
    fleet.machines["i-9"] = Observation("i-9", "terminated", **fields)
    controller.tick()
    found = outcome_of(controller, record)

    assert "i-9" in fleet.terminated
    assert found.outcome is Outcome.TAMPERED
    assert "asked was m7i.large" in found.reason


def test_L26_expired_credentials_are_made_anew_and_the_same_is_asked(store, fleet, clock, submit):
    """RunInstances says ExpiredToken once."""
    renewed = []
    controller = Controller(store, lambda *_: fleet, renew=lambda: renewed.append(1))
    record = submit(**ONE)
    fleet.refusals = [refusal("ExpiredToken")]
    controller.tick()
    clock.at += 3
    controller.tick()

    assert renewed == [1]
    assert len(set(tokens(fleet))) == 1
    assert controller.machine_of(name_of(record)) == "i-0"


def test_L5_a_refusal_after_a_lost_answer_is_definitive(controller, fleet, submit, clock):
    """The answer is lost, then EC2 has no capacity for the replay."""
    record = submit(**ONE)
    fleet.refusals = [ReadTimeoutError(endpoint_url="x"), NO_CAPACITY]
    controller.tick()
    clock.at += 3

    assert outcome_of(controller, record).outcome is Outcome.NO_CAPACITY
    assert fleet.machines == {}


def test_refusals_are_remembered_and_forgotten_as_values():
    state = remember_refusal({}, "o", "C", now=100.0)

    assert find_refusal(state, "o", 100.0 + UNAVAILABLE_SECONDS - 1).code == "C"
    assert find_refusal(state, "o", 100.0 + UNAVAILABLE_SECONDS) is None
    assert find_refusal(forget_refusal(state, "o"), "o", 101.0) is None
    later = remember_refusal(state, "p", "C", now=100.0 + UNAVAILABLE_SECONDS)
    assert set(later) == {"p"}


def test_a_queue_state_of_an_older_release_still_reads():
    assert QueueState.model_validate_json('{"version": 1, "entries": {}}').unavailable == {}
