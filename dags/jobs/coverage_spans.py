"""Coverage segments into spans: what overlaps or touches becomes one, a gap stays a gap."""

from datetime import date

import polars as pl

OPEN_END = date(9999, 12, 31)
"""The last day of coverage that nobody has ended."""


def merge(segments):
    """Merge ``member_id, start, end`` (whole days, both inclusive; no ``end``: open).

    Returns the same columns, disjoint, sorted, at least one uncovered day between two spans of
    a member, and covering exactly the days that the segments cover.
    """
    days = segments.select("member_id", "start", pl.col("end").fill_null(pl.lit(OPEN_END))).sort(
        "member_id", "start", "end"
    )
    # Days as numbers: one day after the last date of the calendar is not a date.
    covered_until = pl.col("end").to_physical().cum_max().shift(1).over("member_id")
    gap = pl.col("start").to_physical() > covered_until + 1
    return (
        days.with_columns(span=gap.fill_null(value=False).cast(pl.Int32))
        .with_columns(pl.col("span").cum_sum().over("member_id"))
        .group_by("member_id", "span")
        .agg(pl.col("start").min(), pl.col("end").max())
        .drop("span")
        .sort("member_id", "start")
    )


def covered_on(lines, spans, day):
    """Keep the lines whose ``member_id`` has coverage on the date in column ``day``."""
    owned = lines.join(spans, on="member_id", how="inner")
    return owned.filter(pl.col(day).is_between("start", "end")).drop("start", "end")
