"""EC2's state machine, without anything running."""

from itertools import product

import pytest

from airflow_ephemeral_ec2.local.instance_states import (
    GUEST,
    HOST,
    SPOT,
    USER,
    Effect,
    Event,
    Reason,
    State,
    next_step,
)


@pytest.mark.parametrize("event", list(Event))
def test_a_terminated_instance_answers_nothing(event):
    assert next_step(State.TERMINATED, event, shutdown_behavior="terminate") is None


@pytest.mark.parametrize(
    ("behavior", "state"), [("terminate", State.SHUTTING_DOWN), ("stop", State.STOPPING)]
)
def test_a_guest_that_powers_off_ends_as_its_launch_says(behavior, state):
    step = next_step(State.RUNNING, Event.POWER_OFF, shutdown_behavior=behavior)

    assert (step.state, step.reason) == (state, GUEST)


@pytest.mark.parametrize(
    ("event", "effect", "reason"),
    [
        (Event.TERMINATE, Effect.STOP, USER),
        (Event.HOST_DEATH, Effect.KILL, HOST),
        (Event.SPOT_RECLAIM, Effect.STOP, SPOT),
        (Event.WATCHDOG, Effect.KILL, GUEST),
    ],
)
def test_every_death_has_its_reason(event, effect, reason):
    step = next_step(State.RUNNING, event, shutdown_behavior="terminate")

    assert (step.state, step.effect, step.reason) == (State.SHUTTING_DOWN, effect, reason)


def test_a_fault_may_name_its_own_reason():
    reason = Reason("Client.InternalError", "KMS")

    step = next_step(
        State.PENDING, Event.LAUNCH_FAILURE, shutdown_behavior="terminate", reason=reason
    )

    assert step.reason == reason


def test_a_stopped_instance_starts_again_and_never_from_elsewhere():
    starters = {
        state
        for state in State
        if next_step(state, Event.START, shutdown_behavior="stop") is not None
    }

    assert starters == {State.STOPPED}


def test_nothing_but_gone_leaves_shutting_down():
    leaving = {
        event
        for event in Event
        if next_step(State.SHUTTING_DOWN, event, shutdown_behavior="terminate") is not None
    }

    assert leaving == {Event.GONE}


def test_no_event_leads_to_terminated_while_processes_may_live():
    jumps = [
        (state, event)
        for state, event in product(State, Event)
        if (step := next_step(state, event, shutdown_behavior="terminate"))
        and step.state is State.TERMINATED
        and event is not Event.GONE
    ]

    assert jumps == []
