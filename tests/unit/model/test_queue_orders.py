"""Holds and promotions: whom they mean, and what they are called."""

import pytest

from airflow_ephemeral_ec2.model.queue import EntryState, Stage
from airflow_ephemeral_ec2.model.queue_orders import (
    OrderAction,
    OrderTarget,
    QueueOrder,
    find_holds,
    find_promoted,
    may_be_held,
    may_be_promoted,
    parse_order_key,
)
from tests.unit.model.queue_entries import make_entry


def order(action, job="claims", date="", at=0.0, **changes):
    target = OrderTarget(payer="acme", job=job, business_date=date)
    fields = {"action": action, "target": target, "by": "ops", "reason": "bad file", "at": at}
    return QueueOrder.model_validate(fields | changes)


ENTRIES = [
    make_entry("a", "claims"),
    make_entry("b", "claims", business_date="2026-02-28"),
    make_entry("c", "claims", payer="pea"),
    make_entry("d", "member"),
]


@pytest.mark.parametrize(
    ("date", "held"), [("", {"a-a1", "b-a1"}), ("2026-02-28", {"b-a1"}), ("2026-01-01", set())]
)
def test_a_hold_means_one_job_of_one_payer_for_one_date_or_all(date, held):
    assert set(find_holds(ENTRIES, [order("hold", date=date)])) == held


def test_a_hold_says_who_why_and_when():
    assert find_holds(ENTRIES[:1], [order("hold", at=4_320.0)]) == {
        "a-a1": 'held by ops "bad file", 01-01 01:12Z'
    }


def test_the_first_promotion_comes_first():
    orders = [order("promote", "member", at=2.0), order("promote", "claims", at=1.0)]

    assert find_promoted(ENTRIES, orders) == {"a-a1": 0, "b-a1": 0, "d-a1": 1}


def test_of_two_promotions_the_earlier_counts():
    orders = [order("promote", date="2026-03-01", at=2.0), order("promote", at=1.0)]

    assert find_promoted(ENTRIES[:1], orders) == {"a-a1": 0}


def promote(entry, at=0.0):
    return order("promote", at=at, target=OrderTarget.of(entry))


def test_a_promotion_of_an_attempt_means_no_other_one_of_its_job_and_date():
    a, retry = ENTRIES[0], make_entry("a", "claims", attempt=2)

    assert find_promoted([a, retry, *ENTRIES[1:]], [promote(a)]) == {"a-a1": 0}
    assert promote(a).target.matches(a)
    assert not promote(a).target.matches(retry)


def test_attempts_that_were_promoted_together_stand_in_their_own_order():
    parts = [make_entry(name, "claims", array_index=n) for n, name in enumerate("zyx")]
    orders = [promote(part, at=1.0) for part in parts]

    assert find_promoted([*parts, ENTRIES[3]], [*orders, promote(ENTRIES[3], at=2.0)]) == {
        "z-a1": 0, "y-a1": 0, "x-a1": 0, "d-a1": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "held", "promoted"),
    [
        ({}, True, True),
        ({"stage": Stage.ADMITTED}, True, True),
        ({"stage": Stage.ADMITTED, "is_asked": True}, False, True),
        ({"stage": Stage.ADMITTED, "may_have_asked": True}, False, True),
        ({"stage": Stage.LAUNCHED}, False, False),
    ],
)
def test_until_when_a_hold_and_a_promotion_still_do_something(state, held, promoted):
    known = EntryState(sequence=1, **state)

    assert (may_be_held(known), may_be_promoted(known)) == (held, promoted)


def test_releases_are_not_in_force():
    assert find_holds(ENTRIES, [order("release")]) == {}
    assert find_promoted(ENTRIES, [order("release")]) == {}


@pytest.mark.parametrize("date", ["", "2026-03-01"])
@pytest.mark.parametrize("action", ["hold", "promote"])
def test_the_name_of_an_order_says_what_it_is(action, date):
    made = order(action, date=date)

    assert parse_order_key(made.key) == (OrderAction(action), made.target)


def test_the_name_of_an_order_for_one_attempt_says_which():
    made = promote(ENTRIES[0])

    assert made.key == "promote/acme/claims/2026-03-01/a-a1"
    assert parse_order_key(made.key) == (OrderAction.PROMOTE, made.target)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "hold/acme/claims",
        "promote/acme/claims/all/",
        "hold/a/b/c/d/e",
        "release/acme/claims/all",
        "x/y/z/all",
    ],
)
def test_other_names_are_not_orders(key):
    assert parse_order_key(key)[0] is None
