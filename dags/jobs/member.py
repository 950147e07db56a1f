"""Enrollment files (X12 834) into the member roster as of the business date.

Reads every ``*.834`` of the date and builds on the latest earlier roster: a member's known
fields replace older ones, a coverage segment replaces the older one of the same plan and start,
and whom a file does not name stays as he was. Writes ``roster`` (one row per member) and
``coverage`` (one row per segment). Nothing delivered at all: exit 99, or 66 without any roster.
"""

import sys

import polars as pl
import x12_files
from endings import MissingInput, NothingToDo
from job_run import progress, run

ROSTER = {
    "member_id": pl.String,
    "card_id": pl.String,
    "mbi": pl.String,
    "medicaid_id": pl.String,
    "first_name": pl.String,
    "last_name": pl.String,
    "dob": pl.String,
    "sex": pl.String,
    "death_date": pl.String,
    "zip": pl.String,
    "state": pl.String,
    "dual_elgbl_cd": pl.String,
    "orec": pl.String,
    "crec": pl.String,
    "snp": pl.Boolean,
    "low_income": pl.Boolean,
    "lti": pl.Boolean,
    "maintenance_type": pl.String,
}
DATES = ("dob", "death_date")
COVERAGE = {"member_id": pl.String, "plan": pl.String, "start": pl.String, "end": pl.String}
SEGMENT = ("member_id", "plan", "start")


def frames_of(members):
    """Turn member records into (roster, coverage); a later record of a member wins."""
    by_id = {}
    for member in members:
        known = {k: v for k, v in member.items() if v not in (None, "") and k != "coverage"}
        by_id.setdefault(member["member_id"], {}).update(known)
    roster = pl.DataFrame(list(by_id.values()), schema=ROSTER).with_columns(
        pl.col(DATES).str.to_date("%Y-%m-%d", strict=False)
    )
    coverage = pl.DataFrame(
        [{"member_id": m["member_id"], **held} for m in members for held in m["coverage"]],
        schema=COVERAGE,
    ).with_columns(pl.col("start", "end").str.to_date("%Y-%m-%d", strict=False))
    return roster, _one_per_segment(coverage)


def _one_per_segment(coverage):
    """One row per (member, plan, start): of several lines of one plan the longest counts."""
    open_ended = pl.col("end").is_null().any()
    return coverage.group_by(SEGMENT, maintain_order=True).agg(
        end=pl.when(open_ended).then(None).otherwise(pl.col("end").max())
    )


def roster_as_of(date, roster, before):
    """Put the day's members over the earlier roster; what a file leaves out is kept."""
    changed = pl.lit(date).alias("last_change")
    today = roster.with_columns(changed)
    if before is None:
        return today.with_columns(first_seen=pl.lit(date)).sort("member_id")
    merged = before.drop("first_seen").update(today, on="member_id", how="full")
    first_seen = before.select("member_id", "first_seen")
    return (
        merged.join(first_seen, on="member_id", how="left")
        .with_columns(pl.col("first_seen").fill_null(date))
        .sort("member_id")
    )


def coverage_as_of(coverage, before):
    """Put the day's segments over the earlier ones of the same member, plan and start."""
    if before is not None:
        kept = before.join(coverage, on=SEGMENT, how="anti", nulls_equal=True)
        coverage = pl.concat([kept, coverage])
    return coverage.select(*SEGMENT, "end").sort(*SEGMENT)


def work(bucket):
    earlier = bucket.earlier("roster")
    files = bucket.incoming(".834")
    if not files:
        _nothing_came(bucket, earlier)
    members = []
    for name, body in files.items():
        members += x12_files.read_members(name, x12_files.text_of(name, body))
    progress("member", f"{len(files)} enrollment files read")
    roster, coverage = frames_of(members)
    before = bucket.read("roster", earlier[-1]) if earlier else None
    covered_before = bucket.read("coverage", earlier[-1]) if earlier else None
    known = set(before["member_id"]) if before is not None else set()
    full_roster = roster_as_of(bucket.date, roster, before)
    full_coverage = coverage_as_of(coverage, covered_before)
    bucket.write("coverage", full_coverage)
    bucket.write("roster", full_roster)
    return {
        "files": len(files),
        "members_named": roster.height,
        "members_new": roster.height - len(known & set(roster["member_id"])),
        "members_total": full_roster.height,
        "segments_total": full_coverage.height,
    }


def _nothing_came(bucket, earlier):
    """No enrollment file: yesterday's roster still stands, unless there is none."""
    if not earlier:
        message = "no enrollment file (*.834) came in and there is no earlier roster"
        raise MissingInput(message)
    if not bucket.anything_came_in():
        message = f"nothing came in for {bucket.date}"
        raise NothingToDo(message)
    progress("member", f"no enrollment file; the roster of {earlier[-1]} stands")


if __name__ == "__main__":
    sys.exit(run("member", work))
