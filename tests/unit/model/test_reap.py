"""Who is an orphan, and who only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.lifetimes import reapable_age, scheduled_end
from airflow_ephemeral_ec2.model.reap import (
    PATIENCE_SECONDS,
    SeenMachine,
    Sighting,
    Standing,
    Suspicion,
    decide_reap,
    suspect_machine,
)
from airflow_ephemeral_ec2.model.spec import LONGEST_LIFETIME_SECONDS


def machine(**changes):
    fields = {
        "instance_id": "i-1",
        "state": "running",
        "payer": "acme",
        "job": "claims",
        "jobkey": "0123456789",
        "attempt": "1",
        "age": 100.0,
        "max_lifetime": 1_000.0,
    }
    return SeenMachine(**(fields | changes))


OVER = {"i-1": Standing.OVER}
OPEN = {"i-1": Standing.OPEN}


@pytest.mark.parametrize(
    ("changes", "standing", "reason"),
    [
        ({}, Standing.OPEN, None),
        ({"age": 1_599.0}, Standing.OPEN, None),
        ({"age": 1_601.0}, Standing.OPEN, Suspicion.TOO_OLD),
        ({"age": 1_601.0}, None, Suspicion.TOO_OLD),
        ({"age": 1_601.0, "state": "stopped"}, None, Suspicion.TOO_OLD),
        ({"age": None}, Standing.OPEN, None),
        ({"state": "stopped"}, Standing.OPEN, Suspicion.STOPPED),
        ({"state": "stopping"}, None, Suspicion.STOPPED),
        ({"state": "shutting-down", "age": 9_999.0}, Standing.OPEN, Suspicion.STUCK),
        ({"state": "terminated", "age": 9_999.0}, Standing.OVER, None),
        ({}, None, None),
        ({"state": "pending"}, Standing.OVER, Suspicion.NOT_OPEN),
        ({}, Standing.ENDING, Suspicion.NOT_OPEN),
        ({}, Standing.LOCKED_OUT, Suspicion.NOT_OPEN),
        ({}, Standing.UNKNOWN, None),
        ({"age": 1_601.0}, Standing.UNKNOWN, Suspicion.TOO_OLD),
    ],
)
def test_a_machine_is_suspected_for_a_reason(changes, standing, reason):
    found = suspect_machine(machine(**changes), standing)

    assert (found.reason if found else None) == reason


def test_K11_a_machine_with_our_tags_that_we_did_not_launch_is_told_and_not_ended():
    """Somebody starts a machine by hand with our environment's tag."""
    stranger, standings = machine(), {"i-1": Standing.UNKNOWN}

    first = decide_reap([stranger], [], standings, {}, 1_000.0)
    later = decide_reap([stranger], [], standings, first.sightings, 90_000.0)

    assert (later.orphans, later.suspects) == ((), ())
    assert "no launch record" in later.alarms[0]
    assert decide_reap([stranger], [], OPEN, {}, 0.0).alarms == ()


def test_K8_a_broken_lifetime_tag_counts_as_the_longest_and_is_told():
    """The max-lifetime tag was edited into something that is no number."""
    broken = machine(max_lifetime=None, age=90 * 86_400.0)

    plan = decide_reap([broken], [], OPEN, {}, 0.0)

    assert suspect_machine(broken, Standing.OPEN) is None
    assert "max-lifetime tag" in plan.alarms[0]
    old = machine(max_lifetime=None, age=LONGEST_LIFETIME_SECONDS + 601.0)
    assert suspect_machine(old, Standing.OPEN).reason is Suspicion.TOO_OLD


@pytest.mark.parametrize("reason", list(PATIENCE_SECONDS))
def test_K8_nobody_is_ended_on_one_look_nor_too_soon(reason):
    """One look is wrong; two looks are too close together."""
    seen = {
        Suspicion.TOO_OLD: machine(age=9_999.0),
        Suspicion.STOPPED: machine(state="stopped"),
        Suspicion.NOT_OPEN: machine(instance_id="i-2"),
        Suspicion.STUCK: machine(state="shutting-down"),
    }
    machines = [seen[reason]] if reason in seen else []
    leftovers = [] if reason in seen else ["vol-1"]
    patience, standings = PATIENCE_SECONDS[reason], OPEN | {"i-2": Standing.OVER}

    first = decide_reap(machines, leftovers, standings, {}, 1_000.0)
    early = decide_reap(machines, leftovers, standings, first.sightings, 1_000.0 + patience - 1)
    late = decide_reap(machines, leftovers, standings, early.sightings, 1_000.0 + patience)

    assert (first.orphans, early.orphans) == ((), ())
    assert [one.reason for one in late.orphans] == [reason]


def test_a_suspicion_that_was_doubted_in_between_begins_anew():
    first = decide_reap([machine()], [], OVER, {}, 0.0)
    doubt = decide_reap([machine()], [], OPEN, first.sightings, 300.0)
    again = decide_reap([machine()], [], OVER, doubt.sightings, 600.0)

    assert doubt.sightings == {}
    assert again.orphans == ()


def test_K8_a_clock_that_goes_back_ends_nobody():
    """The clock jumps back between two passes."""
    before = {"i-1": Sighting(reason=Suspicion.NOT_OPEN, first_seen=10_000.0)}

    plan = decide_reap([machine()], [], OVER, before, 500.0)

    assert plan.orphans == ()
    assert plan.sightings["i-1"].first_seen == 500.0


@given(
    st.lists(
        st.builds(
            machine,
            instance_id=st.sampled_from(["i-1", "i-2", "i-3"]),
            state=st.sampled_from(["pending", "running", "stopped", "shutting-down", "terminated"]),
            age=st.one_of(st.none(), st.floats(0, 1e7)),
            max_lifetime=st.one_of(st.none(), st.floats(60, 1e6)),
        ),
        max_size=5,
        unique_by=lambda one: one.instance_id,
    ),
    st.dictionaries(st.sampled_from(["i-1", "i-2", "i-3"]), st.sampled_from(list(Standing))),
    st.floats(0, 1e9),
)
def test_a_first_pass_never_ends_anything(machines, standings, now):
    plan = decide_reap(machines, ["vol-1"], standings, {}, now)

    assert plan.orphans == ()
    assert set(plan.sightings) == {one.resource_id for one in plan.suspects}


def test_each_layer_acts_after_the_one_within():
    watchdog = 5_000.0

    assert watchdog < scheduled_end(0.0, watchdog) < reapable_age(watchdog)
    assert scheduled_end(0.0, watchdog) - watchdog >= 300
    assert reapable_age(watchdog) - scheduled_end(0.0, watchdog) >= 300


def test_another_reason_is_another_suspicion():
    first = decide_reap([machine(state="stopped")], [], OPEN, {}, 0.0)
    second = decide_reap([machine(age=9_999.0)], [], OPEN, first.sightings, 300.0)

    assert second.orphans == ()
    assert second.sightings["i-1"].first_seen == 300.0
