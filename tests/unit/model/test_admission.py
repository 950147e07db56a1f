"""Who may launch now, by example; the laws are in test_admission_laws.py."""

from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.admission import Because, admit
from airflow_ephemeral_ec2.model.arrivals import merge_arrivals
from airflow_ephemeral_ec2.model.queue import (
    UNAVAILABLE_SECONDS,
    QueueState,
    Stage,
    find_refusal,
    forget_refusal,
    remember_refusal,
)
from airflow_ephemeral_ec2.model.queue_forming import form_queue
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, OrderTarget, QueueOrder
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_entries import make_entry

NOW = 10_000.0


def entry(name, priority=500, vcpus=2, **changes):
    limits = {"limits": Limits(vcpus=8)}
    return make_entry(name, name, priority=priority, vcpus=vcpus, **(limits | changes))


def decide(entries, *, out=None, orders=(), obstacles=None, now=NOW):
    """:param out: entry name -> what the state says of one that is admitted."""
    state = merge_arrivals(QueueState(), entries)
    known = dict(state.entries)
    for name, changes in (out or {}).items():
        launched = {"stage": Stage.LAUNCHED, "launched_at": now} | changes
        known[name] = known[name].model_copy(update=launched)
    state = state.model_copy(update={"entries": known})
    return admit(*form_queue(entries, state, orders, obstacles or {}), now)


def test_the_more_important_job_comes_first():
    decision = decide([entry("low", 100, 8), entry("high", 900, 8)])

    assert decision.admitted == ("high-a1",)
    assert decision.waiting["low-a1"].reason == "8 vCPU wanted, 0 of 8 free; first in line"


def test_an_earlier_business_date_comes_first_at_equal_priority():
    decision = decide(
        [entry("new", vcpus=8, requested_at=1), entry("old", vcpus=8, business_date="2026-02-28")]
    )

    assert decision.admitted == ("old-a1",)


def test_whoever_came_first_comes_first_when_all_else_is_equal():
    decision = decide([entry("b", vcpus=8, requested_at=2), entry("c", vcpus=8, requested_at=1)])

    assert decision.admitted == ("c-a1",)


def test_a_small_job_does_not_pass_a_big_one_that_it_would_delay():
    running = entry("running", 900, 4)

    decision = decide(
        [running, entry("big", 800, 6), entry("small", 100, 2)], out={"running-a1": {"vcpus": 4}}
    )

    assert decision.admitted == ()
    assert decision.waiting["small-a1"].reason == (
        "2 vCPU wanted, 4 of 8 free; behind acme/big (priority 800)"
    )
    assert decision.waiting["small-a1"].behind == "big-a1"


def test_a_small_job_passes_a_big_one_when_it_is_gone_in_time():
    running = entry("running", 900, 4, max_runtime=7_200)

    decision = decide(
        [running, entry("big", 800, 6), entry("small", 100, 2)], out={"running-a1": {"vcpus": 4}}
    )

    assert decision.admitted == ("small-a1",)
    assert decision.waiting["big-a1"].reserved_at == NOW + running.max_lifetime


def test_a_gap_is_not_filled_past_a_more_important_one_that_could_fill_it():
    running = entry("running", 900, 4, max_runtime=7_200)
    jobs = [running, entry("big", 800, 8), entry("mid", 700, 5), entry("small", 100, 2)]

    decision = decide(jobs, out={"running-a1": {"vcpus": 4}})

    assert decision.admitted == ()


def test_nobody_fills_the_gap_before_a_machine_that_is_shutting_down():
    """What it still might have run is no time for others: the first may have its room soon."""
    running = entry("running", 900, 4, max_runtime=7_200)
    jobs = [running, entry("big", 800, 6), entry("small", 100, 2)]

    decision = decide(jobs, out={"running-a1": {"vcpus": 4, "is_ending": True}})

    assert decision.admitted == ()
    assert decision.taken["us-east-1/1234"]["vCPU"] == 4


def test_an_entry_that_waits_for_itself_holds_back_nobody():
    jobs = [entry("a", 900, 8), entry("b", 100, 8)]

    decision = decide(jobs, obstacles={"a-a1": "attempt 1 lives"})

    assert decision.admitted == ("b-a1",)
    assert decision.waiting["a-a1"].reason == "attempt 1 lives"


def test_an_entry_larger_than_the_limit_says_so_and_holds_back_nobody():
    decision = decide([entry("huge", 900, vcpus=64), entry("small", 100)])

    assert "can never fit: raise limits.vcpus" in decision.waiting["huge-a1"].reason
    assert decision.waiting["huge-a1"].because is Because.NEVER
    assert decision.admitted == ("small-a1",)


def test_without_a_limit_everybody_is_admitted():
    assert len(decide([entry(n, vcpus=64, limits=Limits()) for n in "abc"]).admitted) == 3


def test_own_limits_hold_back_those_that_share_them_only():
    limits = {"limits": Limits(vcpus=96, payers={"acme": 2}, spot=4)}
    jobs = [
        entry("first", 900, 2, **limits),
        entry("same-payer", 800, 2, **limits),
        entry("same-payer-too", 700, 1, **limits),
        entry("other", 100, 2, payer="pea", **limits),
        entry("spot", 90, 4, payer="pea", capacity_type="spot", **limits),
        entry("spot-too", 80, 1, payer="pea", capacity_type="spot-then-on-demand", **limits),
    ]

    decision = decide(jobs)

    assert decision.admitted == ("first-a1", "other-a1", "spot-a1")
    assert decision.waiting["same-payer-too-a1"].behind == "same-payer-a1"
    assert decision.waiting["spot-too-a1"].resource == "spot vCPU"


def test_a_machine_counts_as_what_it_turned_out_to_be():
    limits = {"limits": Limits(spot=4, on_demand=4), "capacity_type": "spot-then-on-demand"}
    running = entry("running", vcpus=4, **limits)
    waits = entry("waits", vcpus=4, **(limits | {"capacity_type": "spot"}))

    decision = decide([running, waits], out={"running-a1": {"vcpus": 4, "market": "on-demand"}})

    assert decision.admitted == ("waits-a1",)


def test_what_was_admitted_before_its_account_was_known_counts_in_its_pool():
    """Else the limit would be given twice as soon as the account is known."""
    running = entry("running", vcpus=8, account="")
    waits = entry("waits", vcpus=8, account="1234", requested_at=2.0)
    out = {"running-a1": {"vcpus": 8, "pool": "us-east-1/aws_default"}}

    decision = decide([running, waits], out=out)

    assert decision.admitted == ()
    assert decision.taken["us-east-1/1234"]["vCPU"] == 8


def test_a_machine_whose_entry_cannot_be_read_counts():
    waits = entry("waits", vcpus=8)
    state = merge_arrivals(QueueState(), [waits, entry("broken", vcpus=8)])
    out = {"stage": Stage.LAUNCHED, "vcpus": 8, "pool": "us-east-1/aws_default"}
    broken = state.entries["broken-a1"].model_copy(update=out)
    state = state.model_copy(update={"entries": state.entries | {"broken-a1": broken}})

    decision = admit(*form_queue([waits], state, (), {}), NOW)

    assert decision.admitted == ()


def test_a_hold_stands_before_everything_that_the_entry_waits_for():
    target = OrderTarget(payer="acme", job="a")
    hold = QueueOrder(action=OrderAction.HOLD, target=target, by="ops", reason="bad file", at=0.0)

    decision = decide([entry("a")], orders=[hold], obstacles={"a-a1": "waits for b"})

    assert decision.waiting["a-a1"].reason == 'held by ops "bad file", 01-01 00:00Z'


@given(
    st.lists(
        st.tuples(
            st.sampled_from("rfw"), st.sampled_from("opq"), st.floats(0, 2 * UNAVAILABLE_SECONDS)
        ),
        max_size=30,
    )
)
def test_a_refusal_counts_from_when_it_was_heard_until_its_time_or_a_launch(events):
    """Compared with the plainest model there is: offering -> until when."""
    state, now, until = QueueState(), 1_000.0, {}
    for event, offering, seconds in events:
        known = state.unavailable
        if event == "r":
            known = remember_refusal(known, offering, "Code", now)
            until[offering] = now + UNAVAILABLE_SECONDS
        elif event == "f":
            known = forget_refusal(known, offering)
            until.pop(offering, None)
        else:
            now += seconds
        # Whatever a controller knows, the next one reads from the bucket.
        state = QueueState(unavailable=known)
        state = QueueState.model_validate_json(state.model_dump_json(exclude_defaults=True))
        found = {o for o in "opq" if find_refusal(state.unavailable, o, now) is not None}
        assert found == {o for o, end in until.items() if now < end}


@given(st.lists(st.tuples(st.sampled_from("opq"), st.floats(0, 400)), max_size=30))
def test_refusals_that_are_over_do_not_pile_up(refusals):
    known, now = {}, 0.0
    for offering, pause in refusals:
        now += pause
        known = remember_refusal(known, offering, "Code", now)
        assert all(found.until > now for found in known.values())


TWO_LIMITS = {"limits": Limits(vcpus=64, spot=2, jobs={"claims": 2}), "max_runtime": 36_000}


def test_who_waits_for_one_of_its_limits_is_not_passed_in_another():
    """Else the less important would take both in turns, and it would never be launched."""
    first = make_entry("first", "claims", priority=900, capacity_type="spot", **TWO_LIMITS)
    spot = [make_entry(f"s{n}", "member", capacity_type="spot", **TWO_LIMITS) for n in "12"]
    claims = [make_entry(f"c{n}", "claims", **TWO_LIMITS) for n in "12"]
    taken = {"vcpus": 2}
    everybody = [first, *spot, *claims]

    both = decide(everybody, out={"s1-a1": taken | {"market": "spot"}, "c1-a1": taken})
    assert both.admitted == ()
    one = decide([first, *spot, claims[1]], out={"s1-a1": taken | {"market": "spot"}})
    assert one.admitted == ()
    assert one.waiting["c2-a1"].behind == "first-a1"
    other = decide([first, spot[1], *claims], out={"c1-a1": taken})
    assert other.admitted == ()
    assert other.waiting["s2-a1"].behind == "first-a1"
    assert decide([first, spot[1], claims[1]]).admitted == ("first-a1",)


def test_who_waits_for_one_of_its_limits_keeps_no_more_than_its_own_room_in_another():
    limits = {"limits": Limits(spot=2, jobs={"claims": 6}), "max_runtime": 36_000}
    first = make_entry("first", "claims", priority=900, capacity_type="spot", **limits)
    others = [make_entry(f"c{n}", "claims", **limits) for n in "123"]
    spot = make_entry("s", "member", capacity_type="spot", **limits)

    decision = decide([first, *others, spot], out={"s-a1": {"vcpus": 2, "market": "spot"}})

    assert decision.admitted == ("c1-a1", "c2-a1")
    assert decision.waiting["c3-a1"].behind == "first-a1"
