"""Claims of the business date: read, clean, drop duplicates, and keep what an eligible member owns.

Reads ``*.837``, ``*.ndjson`` (FHIR) and ``*.csv.gz``, with ``roster`` and ``eligibility`` of the
date and the claims of earlier dates. Writes ``claims`` and ``claims_quarantine``; every line that
came in is clean, quarantined with a reason, or a duplicate, and the sum is checked. No claims
file: exit 99.
"""

import sys

import claim_files
import claim_rules
import coverage_spans
import polars as pl
from endings import NothingToDo
from job_run import progress, run

CLEAN = [
    "claim_id",
    "line",
    "member_id",
    "service_date",
    "procedure_code",
    "ndc",
    "diagnosis_codes",
    "units",
    "unit",
    "amount_usd",
    "facility_type",
    "service_type",
    "repairs",
    "file",
    "row",
]
SAME_LINE = [
    "claim_id",
    "line",
    "member_id",
    "service_date",
    "procedure_code",
    "ndc",
    "units",
    "unit",
    "amount_usd",
]
"""Two lines that agree in all of these are one line, sent twice."""


def owners(roster):
    """Map every spelling of every identifier on the roster to its member.

    A spelling that two members share belongs to neither: money is never booked by guess.
    """
    identifiers = ("member_id", "card_id", "mbi", "medicaid_id")
    keys = pl.concat(
        roster.select(key=claim_rules.member_key(name), member_id="member_id")
        for name in identifiers
    )
    return (
        keys.filter(pl.col("key").fill_null("") != "")
        .group_by("key")
        .agg(pl.col("member_id").unique())
        .with_columns(ambiguous=pl.col("member_id").list.len() > 1)
        .with_columns(pl.when(~pl.col("ambiguous")).then(pl.col("member_id").list.first()))
    )


def owned(lines, roster, spans):
    """Add ``member_id``, and a reason where no member, or none with coverage, owns the line."""
    found = lines.join(owners(roster), on="key", how="left", maintain_order="left")
    found = found.with_row_index("place")
    covered = coverage_spans.covered_on(found.select("place", "member_id", "day"), spans, "day")
    found = found.with_columns(covered=pl.col("place").is_in(covered["place"].unique().implode()))
    return found.with_columns(
        reason=pl.coalesce(
            "reason",
            pl.when(pl.col("ambiguous")).then(pl.lit("member_ambiguous")),
            pl.when(pl.col("member_id").is_null()).then(pl.lit("member_unknown")),
            pl.when(~pl.col("covered")).then(pl.lit("not_covered_on_service_date")),
        )
    ).drop("place", "covered", "ambiguous")


def clean_columns(lines):
    """Keep what later jobs read, under the clean names."""
    kept = lines.drop("service_date", "unit").rename({"day": "service_date", "unit_kept": "unit"})
    return kept.select(CLEAN)


def without_repeats(clean, earlier):
    """Drop lines that this date repeats, or that an earlier date already has."""
    first = clean.unique(subset=SAME_LINE, keep="first", maintain_order=True)
    for before in earlier:
        first = first.join(
            before, on=SAME_LINE, how="anti", nulls_equal=True, maintain_order="left"
        )
    return first


def sorted_out(lines, *, date, roster, spans, earlier):
    """Sort delivered lines into (clean, quarantined, number of duplicates).

    Raises
    ------
    RuntimeError
        The three do not add up to what came in: a fault in the rules, and nothing is written.
    """
    judged = owned(claim_rules.judged(lines, date=date), roster, spans)
    sound = clean_columns(judged.filter(pl.col("reason").is_null()))
    clean = without_repeats(sound, earlier)
    rejected = judged.filter(pl.col("reason").is_not_null()).select(*claim_files.LINE, "reason")
    duplicates = sound.height - clean.height
    if clean.height + rejected.height + duplicates != lines.height:
        message = "lines in are not clean + quarantined + duplicates"
        raise RuntimeError(message)
    return clean, rejected.drop("problem"), duplicates


def work(bucket):
    roster, spans = bucket.read("roster"), bucket.read("eligibility")
    files = bucket.incoming(*claim_files.SUFFIXES)
    if not files:
        message = f"no claims file came in for {bucket.date}"
        raise NothingToDo(message)
    lines = pl.concat(claim_files.read_lines(name, body) for name, body in files.items())
    progress("claims", f"{lines.height} lines read from {len(files)} files")
    clean, rejected, duplicates = sorted_out(
        lines,
        date=bucket.date,
        roster=roster,
        spans=spans,
        earlier=(bucket.read("claims", day, SAME_LINE) for day in bucket.earlier("claims")),
    )
    bucket.write("claims_quarantine", rejected)
    bucket.write("claims", clean)
    counts = {
        "files": len(files),
        "lines": lines.height,
        "clean": clean.height,
        "repaired": clean.filter(pl.col("repairs") != "").height,
        "duplicates": duplicates,
        "quarantined": rejected.height,
    }
    by_reason = rejected.group_by("reason").len().sort("reason")
    return counts | {f"quarantined_{reason}": count for reason, count in by_reason.iter_rows()}


if __name__ == "__main__":
    sys.exit(run("claims", work))
