"""Strict by priority, then date, then arrival, within the limit."""

from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.admission import (
    UNAVAILABLE_SECONDS,
    EntryState,
    QueueEntry,
    QueueState,
    Stage,
    admit,
    find_refusal,
    forget_refusal,
    merge_arrivals,
    remember_refusal,
)


def entry(name: str, priority: int = 500, vcpus: int = 2, **changes) -> QueueEntry:
    fields = {
        "jobkey": name,
        "attempt": 1,
        "nonce": "n",
        "payer": "acme",
        "job": name,
        "business_date": "2026-03-01",
        "priority": priority,
        "vcpus": vcpus,
        "capacity_type": "on-demand",
        "depends_on": (),
        "max_runtime": 60,
        "max_wait": None,
        "requested_at": 1.0,
        "supersedes": None,
        "limit_vcpus": 8,
        "table_version": "t",
        "title": name,
    }
    return QueueEntry.model_validate(fields | changes)


def decide(entries, state=None, blocked=None):
    return admit(entries, merge_arrivals(state or QueueState(), entries), blocked=blocked or {})


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


def test_a_small_job_does_not_pass_a_big_one_that_does_not_fit():
    running = entry("running", 900, 4)
    state = QueueState(
        entries={"running-a1": EntryState(sequence=1, stage=Stage.LAUNCHED, vcpus=4)},
        next_sequence=2,
        limit_vcpus=8,
    )

    decision = decide([running, entry("big", 800, 6), entry("small", 100, 2)], state)

    assert decision.admitted == ()
    assert decision.waiting["small-a1"].reason == (
        "2 vCPU wanted, 4 of 8 free; behind acme/big (priority 800)"
    )


def test_an_entry_that_waits_for_itself_holds_back_nobody():
    decision = decide([entry("a", 900, 8), entry("b", 100, 8)], blocked={"a-a1": "attempt 1 lives"})

    assert decision.admitted == ("b-a1",)
    assert decision.waiting["a-a1"].reason == "attempt 1 lives"


def test_an_entry_larger_than_the_limit_says_so():
    decision = decide([entry("huge", vcpus=64)])

    assert "can never fit: raise limits.vcpus" in decision.waiting["huge-a1"].reason


def test_without_a_limit_everybody_is_admitted():
    assert len(decide([entry(n, vcpus=64, limit_vcpus=None) for n in "abc"]).admitted) == 3


def test_the_limit_of_the_latest_arrival_is_in_force():
    state = merge_arrivals(QueueState(), [entry("a", limit_vcpus=8)])

    state = merge_arrivals(state, [entry("a", limit_vcpus=8), entry("b", limit_vcpus=96)])

    assert state.limit_vcpus == 96


def test_arrival_order_survives_and_the_gone_are_forgotten():
    first = merge_arrivals(QueueState(), [entry("a"), entry("b", requested_at=2)])

    second = merge_arrivals(first, [entry("b", requested_at=2), entry("c", requested_at=0)])

    assert {name: s.sequence for name, s in second.entries.items()} == {"b-a1": 2, "c-a1": 3}


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=12
    ),
    st.integers(1, 12),
)
def test_nobody_is_ever_passed_and_the_limit_holds(jobs, limit):
    entries = [
        entry(f"j{i}", priority, vcpus, business_date=f"2026-03-0{day}", limit_vcpus=limit)
        for i, (priority, vcpus, day) in enumerate(jobs)
    ]

    decision = decide(entries)

    by_name = {e.name: e for e in entries}
    admitted = [by_name[name] for name in decision.admitted]
    waiting = [by_name[name] for name in decision.waiting]
    assert sum(e.vcpus for e in admitted) <= limit
    assert len(admitted) + len(waiting) == len(entries)
    for held in waiting:
        for passed in admitted:
            assert (-passed.priority, passed.business_date) <= (-held.priority, held.business_date)


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
        if event == "r":
            state = remember_refusal(state, offering, "Code", now)
            until[offering] = now + UNAVAILABLE_SECONDS
        elif event == "f":
            state = forget_refusal(state, offering)
            until.pop(offering, None)
        else:
            now += seconds
        # Whatever a controller knows, the next one reads from the bucket.
        state = QueueState.model_validate_json(state.model_dump_json(exclude_defaults=True))
        known = {o for o in "opq" if find_refusal(state, o, now) is not None}
        assert known == {o for o, end in until.items() if now < end}


@given(st.lists(st.tuples(st.sampled_from("opq"), st.floats(0, 400)), max_size=30))
def test_refusals_that_are_over_do_not_pile_up(refusals):
    state, now = QueueState(), 0.0
    for offering, pause in refusals:
        now += pause
        state = remember_refusal(state, offering, "Code", now)
        assert all(found.until > now for found in state.unavailable.values())
