"""What jobs depend on, as a controller reads it from the bucket."""

import pytest

from airflow_ephemeral_ec2.hooks.order_book import RECHECK_SECONDS, OrderBook
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.order import DatedKey
from airflow_ephemeral_ec2.model.outcome import Outcome
from tests.unit.model.queue_entries import make_entry

MEMBER = DatedKey("acme", "member", "2026-03-01")
CLAIMS = make_entry("c", "claims", depends_on=("member",))


@pytest.fixture
def book(store):
    return OrderBook(store, one_by_one)


def test_a_success_in_another_run_is_found(book, end):
    end("member", jobkey="1" * 40)

    assert book.check([CLAIMS], 0.0) == ({}, {})
    assert not book.needs_check(CLAIMS)


def test_what_is_missing_is_named_and_looked_for_again_only_after_a_while(book, end):
    missing, _ = book.check([CLAIMS], 0.0)
    assert "nobody has asked for it yet" in missing["c-a1"]

    end("member", jobkey="1" * 40)

    assert set(book.known_obstacles([CLAIMS], RECHECK_SECONDS - 1)) == {"c-a1"}
    assert book.known_obstacles([CLAIMS], RECHECK_SECONDS) == {}
    assert book.check([CLAIMS], RECHECK_SECONDS)[0] == {}


def test_what_this_controller_concludes_counts_at_once(book, end):
    book.check([CLAIMS], 0.0)
    end("member", jobkey="1" * 40)

    book.forget(MEMBER)

    assert book.known_obstacles([CLAIMS], 1.0) == {}
    assert book.check([CLAIMS], 1.0)[0] == {}


def test_a_failure_after_the_success_is_seen_when_it_is_heard_of(book, end):
    end("member", jobkey="1" * 40)
    book.check([CLAIMS], 0.0)
    end("member", Outcome.JOB_FAILED, jobkey="1" * 40, attempt=2)

    book.forget(MEMBER)

    assert book.needs_check(CLAIMS)
    assert "job failed" in book.check([CLAIMS], 1.0)[0]["c-a1"]


def test_an_open_attempt_of_a_dependency_needs_no_reading(book):
    member = make_entry("m", "member")

    assert set(book.known_obstacles([CLAIMS, member], 0.0)) == {"c-a1"}


def test_all_parts_of_an_array_must_have_succeeded(book, end):
    end("member", jobkey="1" * 40, array_index=0, array_size=2)
    assert "only some" in book.check([CLAIMS], 0.0)[0]["c-a1"]

    end("member", jobkey="2" * 40, array_index=1, array_size=2)
    book.forget(MEMBER)

    assert book.check([CLAIMS], 0.0)[0] == {}


def test_a_member_that_ran_again_makes_the_claims_stale(book, store, end):
    end("claims", jobkey="1" * 40)
    member = make_entry("m", "member", dependents=("claims", "downstream"))
    claims = DatedKey("acme", "claims", "2026-03-01")

    assert book.mark_stale(member, (), 1.0).makes_stale == (claims,)

    after = make_entry("d", "downstream", depends_on=("claims",))
    assert book.check([after], 0.0) == ({}, {"d-a1": (claims,)})


def test_by_date_the_date_before_must_have_succeeded(book, end):
    entry = make_entry("c", "claims", in_order_by_date=True)
    end("claims", Outcome.JOB_FAILED, jobkey="1" * 40, date="2026-02-27")
    end("claims", Outcome.JOB_FAILED, jobkey="2" * 40, date="2026-02-28")

    assert "acme/claims 2026-02-28" in book.check([entry], 0.0)[0]["c-a1"]

    end("claims", jobkey="3" * 40, date="2026-02-28")
    book.forget(DatedKey("acme", "claims", "2026-02-28"))
    assert book.check([entry], 0.0)[0] == {}


@pytest.mark.parametrize("known", [None, Outcome.SUCCEEDED, Outcome.JOB_FAILED])
@pytest.mark.parametrize("came", [Outcome.SUCCEEDED, Outcome.JOB_FAILED])
def test_a_date_that_ends_later_may_be_the_date_before_of_who_was_looked_up(book, end, known, came):
    """It was asked for when who comes after it had been cleared, and waited for room."""
    entry = make_entry("c", "claims", in_order_by_date=True)
    if known:
        end("claims", known, jobkey="1" * 40, date="2026-02-27")
    book.check([entry], 0.0)
    end("claims", came, jobkey="2" * 40, date="2026-02-28")

    book.forget(DatedKey("acme", "claims", "2026-02-28"))

    assert book.needs_check(entry)
    assert book.known_obstacles([entry], 1.0) == {}
    missing = book.check([entry], 1.0)[0]
    assert ("c-a1" in missing) is (came is Outcome.JOB_FAILED)


@pytest.mark.parametrize("changes", [{"depends_on": ()}, {"order_override": "the payer called"}])
def test_who_waits_for_nothing_is_not_looked_up(book, changes):
    assert not book.needs_check(make_entry("c", **({"depends_on": ("member",)} | changes)))


def test_those_who_have_left_are_forgotten(book, end):
    end("member", jobkey="1" * 40)
    book.check([CLAIMS], 0.0)

    book.keep([])

    assert book.needs_check(CLAIMS)
