"""What may be repaired in a claim line, and what may not: the reason for its quarantine.

Pure: a table of delivered lines in, a table with clean values, ``repairs`` (what was mended,
joined by ``|``) and ``reason`` (null: sound) out. The first reason that applies is kept.
"""

import polars as pl

CONTRACT_RATES_TO_USD = {"USD": 1.0, "USC": 0.01, "EUR": 1.08, "GBP": 1.27, "CAD": 0.74}
"""US dollars for one unit; USC is the cent. Fixed by contract for a plan year, not a market rate."""

CURRENCY_SPELLINGS = {
    **dict.fromkeys(("USD", "US$", "$", "DOLLAR", "DOLLARS", "UDS"), "USD"),
    **dict.fromkeys(("USC", "CT", "CTS", "CENT", "CENTS"), "USC"),
    **dict.fromkeys(("EUR", "EURO", "EUROS", "€", "ERU"), "EUR"),
    **dict.fromkeys(("GBP", "£", "POUND", "POUNDS"), "GBP"),
    **dict.fromkeys(("CAD", "C$", "CAN"), "CAD"),
}
UNITS = {
    **dict.fromkeys(("UN", "UNIT", "UNITS", "EA", "EACH", "UNT"), ("UN", 1.0)),
    **dict.fromkeys(("MIN", "MJ", "MINUTES"), ("UN", 1 / 15)),
    **dict.fromkeys(("HR", "HOUR", "HOURS"), ("UN", 4.0)),
    **dict.fromkeys(("DA", "DAY", "DAYS"), ("DA", 1.0)),
    **dict.fromkeys(("MG", "ME"), ("MG", 1.0)),
    **dict.fromkeys(("G", "GR", "GRAM"), ("MG", 1000.0)),
    **dict.fromkeys(("ML", "MILLILITER"), ("ML", 1.0)),
    "F2": ("IU", 1.0),
}
"""Spelling -> (unit kept, factor). A billed unit of time is 15 minutes, as in CPT's timed codes."""

_DATE_FORMATS = (
    (r"^\d{4}-\d{2}-\d{2}$", "%Y-%m-%d"),
    (r"^\d{8}$", "%Y%m%d"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4}$", "%d.%m.%Y"),
    (r"^\d{1,2}/\d{1,2}/\d{4}$", "%m/%d/%Y"),
    (r"^\d{1,2}-[A-Za-z]{3}-\d{4}$", "%d-%b-%Y"),
)
_PROCEDURE = r"^[0-9A-Z]\d{3}[0-9A-Z]$"
_DIAGNOSIS = r"^[A-Z]\d[0-9A-Z]{1,5}$"


def member_key(column):
    """Spell a member identifier one way: capitals, no punctuation, the letter O as zero."""
    return (
        pl.col(column)
        .str.to_uppercase()
        .str.replace_all(r"[^0-9A-Z]", "")
        .str.replace_all("O", "0", literal=True)
    )


def judged(lines, *, date):
    """Add clean values, ``repairs`` and ``reason`` to delivered lines.

    ``date`` is the business date: no service can lie after it.
    """
    delivered = lines.with_columns(
        pl.col(name).str.strip_chars(' \t"').replace("", None)
        for name, kind in lines.schema.items()
        if kind == pl.String
    )
    parsed = _with_dates(delivered.with_columns(key=member_key("member"))).with_columns(
        procedure_code=_procedure(),
        diagnosis_codes=_diagnoses(),
        units=pl.col("quantity").str.replace(",", ".", literal=True).cast(pl.Float64, strict=False),
        money=_money(),
        coin=_currency(),
        unit_kept=_unit(0, pl.String),
        unit_factor=_unit(1, pl.Float64),
    )
    return _with_reason(_with_repairs(_with_totals(parsed)), date)


def _with_dates(lines):
    """Parse dates, and give a line without one the date of its claim if that has only one."""
    text = pl.col("service_date")
    parsed = pl.coalesce(
        pl.when(text.str.contains(shape)).then(text).str.to_date(form, strict=False)
        for shape, form in _DATE_FORMATS
    )
    dated = lines.with_columns(day=parsed)
    undated = pl.col("service_date").is_null()
    siblings = pl.col("claim_id").is_in(
        dated.filter(undated)["claim_id"].drop_nulls().unique().implode()
    )
    claims = (
        dated.filter(siblings & pl.col("day").is_not_null())
        .group_by("file", "claim_id", "key")
        .agg(claim_day=pl.col("day").first(), days=pl.col("day").n_unique())
        .filter(pl.col("days") == 1)
        .drop("days")
    )
    joined = dated.join(claims, on=["file", "claim_id", "key"], how="left", maintain_order="left")
    borrowed = undated & pl.col("claim_day").is_not_null()
    return joined.with_columns(
        day=pl.when(undated).then("claim_day").otherwise("day"), date_borrowed=borrowed
    ).drop("claim_day")


def _procedure():
    """No procedure code holds the letter O; where one stands, a zero was meant."""
    code = pl.col("procedure").str.to_uppercase().str.replace_all(r"[\s.]", "")
    return code.str.replace_all("O", "0", literal=True)


def _diagnoses():
    """Codes without dots; the letter O can only stand first, so any other is a zero."""
    codes = pl.col("diagnoses").str.to_uppercase().str.replace_all(r"[\s.]", "")
    codes = codes.str.replace_all(r"(^|\|)O", "${1}_").str.replace_many(["O", "_"], ["0", "O"])
    split = codes.fill_null("").str.split("|")
    return split.list.eval(
        pl.element().filter(pl.element().str.contains(_DIAGNOSIS)).unique().sort()
    )


def _money():
    """Read 1,234.50 and 1.234,50 and $12 and (12.00); the last separator before cents decides."""
    text = pl.col("amount").str.replace_all(r"[^0-9,.()-]", "")
    negative = text.str.contains(r"[-(]")
    text = text.str.replace_all(r"[()-]", "")
    continental = text.str.contains(r",\d{1,2}$")
    plain = (
        pl.when(continental)
        .then(text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True))
        .otherwise(text.str.replace_all(",", "", literal=True))
    ).cast(pl.Float64, strict=False)
    return pl.when(negative).then(-plain).otherwise(plain)


def _currency():
    """Take the currency named, else the sign beside the amount, else the contract's dollar."""
    named = pl.col("currency").str.to_uppercase().str.replace_all(r"[\s.]", "")
    sign = pl.col("amount").str.extract(r"([$€£])")
    spelled = pl.coalesce(named, sign, pl.lit("USD"))
    return spelled.replace_strict(CURRENCY_SPELLINGS, default=None, return_dtype=pl.String)


def _unit(part, kind):
    spelled = pl.col("unit").str.to_uppercase().str.replace_all(r"[\s.]", "").fill_null("UN")
    known = {spelling: kept[part] for spelling, kept in UNITS.items()}
    return spelled.replace_strict(known, default=None, return_dtype=kind)


def _with_totals(lines):
    rate = pl.col("coin").replace_strict(
        CONTRACT_RATES_TO_USD, default=None, return_dtype=pl.Float64
    )
    return lines.with_columns(
        amount_usd=(pl.col("money") * rate).round(2),
        units=(pl.col("units").fill_null(1.0) * pl.col("unit_factor")).round(4),
        quantity_unread=pl.col("quantity").is_not_null() & pl.col("units").is_null(),
    )


def _with_repairs(lines):
    """Name what was mended, in a fixed order."""
    rewritten = pl.col("diagnoses").fill_null("").str.count_matches("|", literal=True)
    mended = {
        "service_date_format": ~pl.col("service_date").str.contains(_DATE_FORMATS[0][0]),
        "service_date_from_claim": pl.col("date_borrowed"),
        "member_spelling": pl.col("member") != pl.col("key"),
        "procedure_spelling": pl.col("procedure") != pl.col("procedure_code"),
        "diagnoses_reduced": pl.col("diagnoses").is_not_null()
        & (pl.col("diagnosis_codes").list.len() < rewritten + 1),
        "quantity_assumed": pl.col("quantity").is_null(),
        "unit_converted": pl.col("unit_factor") != 1.0,
        "currency_assumed": pl.col("currency").is_null(),
        "currency_converted": pl.col("coin") != "USD",
    }
    names = [pl.when(found).then(pl.lit(name)) for name, found in mended.items()]
    return lines.with_columns(repairs=pl.concat_str(names, separator="|", ignore_nulls=True))


def _with_reason(lines, date):
    nothing = pl.col("procedure_code").is_null() & pl.col("ndc").is_null()
    conditions = {
        "missing_claim_id": pl.col("claim_id").is_null(),
        "missing_member": pl.col("key").fill_null("") == "",
        "missing_service_date": pl.col("service_date").is_null() & pl.col("day").is_null(),
        "bad_service_date": pl.col("day").is_null() | (pl.col("day").dt.year() < 1900),
        "service_date_in_future": pl.col("day") > pl.lit(date).str.to_date(),
        "bad_procedure_code": ~pl.col("procedure_code").str.contains(_PROCEDURE),
        "no_service": nothing & (pl.col("diagnosis_codes").list.len() == 0),
        "missing_amount": pl.col("amount").is_null(),
        "bad_amount": pl.col("money").is_null(),
        "negative_amount": pl.col("money") < 0,
        "unknown_currency": pl.col("coin").is_null(),
        "bad_quantity": pl.col("quantity_unread") | (pl.col("units") <= 0),
        "unknown_unit": pl.col("unit_factor").is_null(),
    }
    reasons = [pl.when(found).then(pl.lit(name)) for name, found in conditions.items()]
    return lines.with_columns(reason=pl.coalesce(pl.col("problem"), *reasons))
