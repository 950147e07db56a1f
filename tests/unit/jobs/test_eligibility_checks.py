from datetime import date

import coverage_spans
import eligibility
import polars as pl
import pytest

ROSTER = pl.DataFrame(
    [("A", None), ("DEAD", date(2026, 1, 15)), ("BARE", None)],
    schema={"member_id": pl.String, "death_date": pl.Date},
    orient="row",
)


def judged(name, start, end):
    row = [(name, "", start and date.fromisoformat(start), end and date.fromisoformat(end))]
    schema = {"member_id": pl.String, "plan": pl.String, "start": pl.Date, "end": pl.Date}
    return eligibility.judged(pl.DataFrame(row, schema=schema, orient="row"), ROSTER)


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (("A", "2026-01-01", None), None),
        (("A", None, "2026-02-01"), "missing_start"),
        (("NOBODY", "2026-01-01", None), "member_not_in_roster"),
        (("A", "2026-02-01", "2026-01-31"), "end_before_start"),
        (("A", "2026-02-01", "2026-02-01"), None),
        (("DEAD", "2026-02-01", None), "starts_after_death"),
    ],
)
def test_a_segment_is_checked_against_the_roster(segment, reason):
    assert judged(*segment)["reason"].to_list() == [reason]


def test_coverage_ends_on_the_day_of_death():
    assert judged("DEAD", "2026-01-01", None)["end"].to_list() == [date(2026, 1, 15)]


def test_a_member_without_any_span_is_an_issue():
    segments = judged("A", "2026-01-01", None)
    issues = eligibility.issues_of(segments, coverage_spans.merge(segments), ROSTER)
    assert issues.select("member_id", "reason").rows() == [
        ("BARE", "no_coverage"),
        ("DEAD", "no_coverage"),
    ]
