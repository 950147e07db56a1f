"""How often EC2 is asked, and whose ends are recorded at the same time."""

import itertools

import pytest

from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.watch import (
    may_look_sooner,
    pause_after,
    plan_batches,
    spread,
)


@pytest.fixture
def make_entry(make_record):
    numbers = itertools.count()

    def make(payer, job, date="2026-03-01"):
        made = make_record(jobkey=f"{next(numbers):040d}", payer=payer, job=job)
        return plan_entry(made.model_copy(update={"business_date": date}))

    return make


@pytest.mark.parametrize(
    ("chance", "longest"), [(0.0, 54.0), (0.5, 60.0), (1.0, 66.0)], ids=["least", "middle", "most"]
)
def test_a_pause_is_doubled_after_each_failure_up_to_a_minute(chance, longest):
    pauses = [pause_after(failures, chance) for failures in (1, 2, 3, 4, 5, 100_000)]

    factor = longest / 60
    assert pauses == pytest.approx(
        [5 * factor, 10 * factor, 20 * factor, 40 * factor, longest, longest]
    )


def test_a_pause_is_spread_by_a_tenth_at_most():
    assert [spread(10.0, chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx([9.0, 10.0, 11.0])


def test_the_parts_of_an_array_and_other_payers_end_at_the_same_time(make_entry):
    entries = [make_entry(payer, "claims") for payer in ("acme", "acme", "acme", "zeta")]

    assert plan_batches(entries, 100) == [entries]


def test_the_jobs_of_one_payer_and_date_end_one_after_the_other(make_entry):
    member, claims = make_entry("acme", "member"), make_entry("acme", "claims")
    other_date, other_payer = (
        make_entry("acme", "claims", "2026-03-02"),
        make_entry("zeta", "claims"),
    )
    part = make_entry("acme", "claims")

    batches = plan_batches([member, claims, other_date, other_payer, part], 100)

    assert batches == [[member, other_date, other_payer], [claims, part]]


def test_no_batch_is_larger_than_asked_for_and_nobody_is_left_out(make_entry):
    entries = [make_entry("acme", job) for job in ("member", "claims") * 7]

    batches = plan_batches(entries, 3)

    assert [len(batch) for batch in batches] == [3, 3, 1, 3, 3, 1]
    assert {entry.name for batch in batches for entry in batch} == {entry.name for entry in entries}


def test_who_comes_first_is_in_the_first_batch(make_entry):
    entries = [make_entry(payer, "claims") for payer in ("zeta", "acme", "beta")]

    assert plan_batches(entries, 1) == [[entry] for entry in entries]


def test_three_looks_a_minute_are_made_out_of_turn_however_many_machines_are_to_end():
    looks, made = [], []
    for now in range(0, 181, 2):
        if may_look_sooner(looks[-3:], now):
            looks.append(now)
            made.append(now)

    assert made == [0, 2, 4, 60, 62, 64, 120, 122, 124, 180]
