from datetime import date, timedelta
from itertools import pairwise

import coverage_spans
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

DAY_0 = date(2026, 1, 1)
SCHEMA = {"member_id": pl.String, "start": pl.Date, "end": pl.Date}


def merge(*segments):
    rows = [("A", date.fromisoformat(a), date.fromisoformat(b) if b else None) for a, b in segments]
    merged = coverage_spans.merge(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return [(start.isoformat(), end.isoformat()) for _, start, end in merged.iter_rows()]


def test_overlapping_segments_become_one_span():
    assert merge(("2026-01-01", "2026-02-15"), ("2026-02-01", "2026-03-31")) == [
        ("2026-01-01", "2026-03-31")
    ]


def test_segments_that_touch_become_one_span():
    assert merge(("2026-01-01", "2026-01-31"), ("2026-02-01", "2026-02-28")) == [
        ("2026-01-01", "2026-02-28")
    ]


def test_one_uncovered_day_keeps_two_spans():
    assert merge(("2026-01-01", "2026-01-30"), ("2026-02-01", "2026-02-28")) == [
        ("2026-01-01", "2026-01-30"),
        ("2026-02-01", "2026-02-28"),
    ]


def test_an_open_segment_swallows_everything_after_its_start():
    assert merge(("2026-01-01", None), ("2026-06-01", "2026-06-30")) == [
        ("2026-01-01", "9999-12-31")
    ]


def test_a_short_segment_inside_a_long_one_does_not_cut_it():
    segments = ("2026-01-01", "2026-12-31"), ("2026-02-01", "2026-02-28"), ("2026-12-01", None)
    assert merge(*segments) == [("2026-01-01", "9999-12-31")]


def test_members_do_not_merge_with_each_other():
    rows = [("A", DAY_0, DAY_0), ("B", DAY_0 + timedelta(1), DAY_0 + timedelta(2))]
    merged = coverage_spans.merge(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    assert merged.rows() == rows


def days_of(rows):
    return {
        (m, start + timedelta(n)) for m, start, end in rows for n in range((end - start).days + 1)
    }


segment = st.tuples(st.sampled_from("AB"), st.integers(0, 40), st.integers(0, 12))


@given(st.lists(segment, max_size=12))
def test_spans_cover_exactly_the_days_of_the_segments_and_lie_apart_in_order(drawn):
    rows = [(m, DAY_0 + timedelta(a), DAY_0 + timedelta(a + n)) for m, a, n in drawn]

    spans = coverage_spans.merge(pl.DataFrame(rows, schema=SCHEMA, orient="row")).rows()

    assert days_of(spans) == days_of(rows)
    assert spans == sorted(spans)
    for (member, _, end), (after, start, _) in pairwise(spans):
        assert member != after or start > end + timedelta(days=1)
