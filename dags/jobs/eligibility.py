"""Coverage segments into spans of eligibility, checked against the roster.

Reads ``roster`` and ``coverage`` of the date; writes ``eligibility`` (member, start, end: disjoint
spans, gaps kept, open coverage ends on 9999-12-31) and ``eligibility_issues`` (one row per
segment or member that something is wrong with, with a reason for programs).
"""

import sys

import coverage_spans
import polars as pl
from job_run import run

REASONS = ("missing_start", "member_not_in_roster", "end_before_start", "starts_after_death")


def judged(coverage, roster):
    """Add a ``reason`` to every segment (null: sound) and end coverage on the day of death.

    A payer voids a segment by ending it before it starts; it counts for nothing then.
    """
    known = roster.select("member_id", "death_date", known=pl.lit(value=True))
    joined = coverage.join(known, on="member_id", how="left")
    conditions = (
        pl.col("start").is_null(),
        pl.col("known").is_null(),
        pl.col("end") < pl.col("start"),
        pl.col("start") > pl.col("death_date"),
    )
    reason = pl.coalesce(
        pl.when(condition).then(pl.lit(name))
        for name, condition in zip(REASONS, conditions, strict=True)
    )
    return joined.with_columns(reason=reason, end=pl.min_horizontal("end", "death_date")).drop(
        "known", "death_date"
    )


def issues_of(segments, spans, roster):
    """List the unsound segments, and the members whom no segment covers."""
    unsound = segments.filter(pl.col("reason").is_not_null())
    uncovered = (
        roster.select("member_id")
        .join(spans, on="member_id", how="anti")
        .with_columns(reason=pl.lit("no_coverage"))
    )
    return pl.concat([unsound, uncovered], how="diagonal").sort("member_id", "reason", "start")


def work(bucket):
    roster = bucket.read("roster")
    segments = judged(bucket.read("coverage"), roster)
    sound = segments.filter(pl.col("reason").is_null())
    spans = coverage_spans.merge(sound)
    issues = issues_of(segments, spans, roster)
    bucket.write("eligibility_issues", issues)
    bucket.write("eligibility", spans)
    counts = {
        "segments": segments.height,
        "spans": spans.height,
        "members_covered": spans["member_id"].n_unique(),
    }
    for reason in (*REASONS, "no_coverage"):
        counts[reason] = issues.filter(pl.col("reason") == reason).height
    return counts


if __name__ == "__main__":
    sys.exit(run("eligibility", work))
