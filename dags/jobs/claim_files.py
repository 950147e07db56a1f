"""Claims as payers send them, into one table of lines, nothing repaired yet.

Three formats: X12 837, FHIR ExplanationOfBenefit records (one JSON per line), and a CSV of the
payer's own. Every value stays text as delivered; ``problem`` marks rows that could not be read.
"""

import difflib
import gzip
import json
import zlib

import polars as pl
import x12_files
from endings import BrokenInput

LINE = {
    "file": pl.String,
    "row": pl.Int64,
    "claim_id": pl.String,
    "line": pl.Int64,
    "member": pl.String,
    "service_date": pl.String,
    "procedure": pl.String,
    "ndc": pl.String,
    "diagnoses": pl.String,
    "quantity": pl.String,
    "unit": pl.String,
    "amount": pl.String,
    "currency": pl.String,
    "facility_type": pl.String,
    "service_type": pl.String,
    "problem": pl.String,
}
SUFFIXES = (".837", ".ndjson", ".csv.gz")

DRUG_COST = "/tot_rx_cst_amt"
"""CMS's variable for the total cost of a prescription (Blue Button, Part D events)."""

CSV_COLUMNS = {
    "claim_id": ("clm_no", "claim_no", "claim_id"),
    "line": ("ln", "line", "line_no"),
    "member": ("mbr_ref", "member", "member_id", "mbr_no"),
    "service_date": ("svc_dt", "service_date", "dos"),
    "procedure": ("proc", "procedure", "cpt"),
    "diagnoses": ("dx_list", "diagnoses", "icd"),
    "quantity": ("qty", "quantity"),
    "unit": ("uom", "unit"),
    "amount": ("amt", "amount", "charge"),
    "currency": ("ccy", "currency", "cur"),
}
CSV_NEEDED = ("claim_id", "member", "service_date", "amount")


def read_lines(name, body):
    """Read one file by its suffix; raises BrokenInput for a file that is broken as a whole."""
    if name.endswith(".837"):
        return from_837(name, x12_files.text_of(name, body))
    if name.endswith(".ndjson"):
        return from_fhir(name, body)
    return from_csv(name, body)


def from_837(name, content):
    rows = []
    for service, (line, charge, unit) in x12_files.read_claim_lines(name, content):
        rows.append({**_service(service), "line": line, "unit": unit, "amount": charge})
    return _frame(name, rows).with_columns(currency=pl.lit("USD"))


def _service(service):
    """Take what the rules need from hccinfhir's ServiceLevelData."""
    return {
        "claim_id": service.claim_id,
        "member": service.patient_id,
        "service_date": service.service_date,
        "procedure": service.procedure_code,
        "ndc": service.ndc,
        "diagnoses": "|".join(service.claim_diagnosis_codes),
        "quantity": None if service.quantity is None else f"{service.quantity:g}",
        "facility_type": service.facility_type,
        "service_type": service.service_type,
    }


def from_fhir(name, body):
    """Read ExplanationOfBenefit records; what the payer paid stands on a claim's first line."""
    rows = []
    for text in body.decode("utf-8", errors="replace").splitlines():
        if text.strip():
            rows += _eob_lines(text)
    if not rows or all(row.get("problem") for row in rows):
        message = f"{name}: not one readable ExplanationOfBenefit"
        raise BrokenInput(message)
    return _frame(name, rows)


def _eob_lines(text):
    from hccinfhir.extractor_fhir import extract_sld_fhir  # noqa: PLC0415 (0.3 s to import)

    try:
        record = json.loads(text)
        if record["resourceType"] != "ExplanationOfBenefit":
            return [{"problem": "unreadable_record"}]
        services = extract_sld_fhir(record)
        paid = _paid(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        return [{"problem": "unreadable_record"}]
    currency = paid.get("currency") or paid.get("code")
    rows = []
    for line, service in enumerate(services, 1):
        amount = paid.get("value") if line == 1 or "value" not in paid else 0
        money = {"amount": None if amount is None else str(amount), "currency": currency}
        rows.append({**_service(service), "line": line, **money})
    return rows


def _paid(record):
    """Find the money of a whole claim: what was paid, or what the drugs of a pharmacy claim cost."""
    paid = record.get("payment", {}).get("amount") or record.get("totalCost") or {}
    if "value" in paid:
        return paid
    costs = [
        cost["amount"]
        for item in record.get("item", ())
        for cost in item.get("adjudication", ())
        if any(c["code"].endswith(DRUG_COST) for c in cost["category"]["coding"])
    ]
    return costs[0] if costs else paid


def from_csv(name, body):
    """Read the semicolon format; its header may be misspelled, but must be recognisable."""
    try:
        text = gzip.decompress(body).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error):
        message = f"{name}: not a whole gzip file"
        raise BrokenInput(message) from None
    raw = _cells(name, text)
    columns = column_names(raw.columns)
    lacking = [column for column in CSV_NEEDED if column not in columns.values()]
    if lacking:
        message = f"{name}: no column for {', '.join(lacking)} in the header"
        raise BrokenInput(message)
    known = raw.select("problem", *(pl.col(them).alias(us) for them, us in columns.items()))
    lines = known.with_columns(
        pl.lit(None, dtype=pl.String).alias(column)
        for column in LINE
        if column not in known.columns
    )
    return lines.with_columns(
        file=pl.lit(name),
        row=pl.int_range(1, pl.len() + 1, dtype=pl.Int64),
        line=pl.col("line").cast(pl.Int64, strict=False),
    ).select(pl.col(column).cast(kind) for column, kind in LINE.items())


def _cells(name, text):
    """Split lines into columns; nothing is quoted, so a row with too many fields is suspect.

    Its values may have slipped into the wrong columns: it is marked, not guessed at.
    """
    rows = [row for row in text.splitlines() if row.strip()]
    if len(rows) < 2 or ";" not in rows[0]:
        message = f"{name}: not semicolon-separated lines with a header"
        raise BrokenInput(message)
    cells = pl.read_csv(
        "\n".join(rows).encode(),
        separator=";",
        quote_char=None,
        infer_schema=False,
        truncate_ragged_lines=True,
    )
    fields = pl.Series("fields", rows[1:]).str.count_matches(";", literal=True)
    too_many = fields > rows[0].count(";")
    return cells.with_columns(
        problem=too_many.replace_strict({True: "too_many_fields"}, default=None)
    )


def column_names(header):
    """Map the header's words to ours: known words first, then the nearest misspelling."""
    known = {word: ours for ours, words in CSV_COLUMNS.items() for word in words}
    found, unclear = {}, []
    for theirs in header:
        word = theirs.strip().lower().replace(" ", "_").replace("#", "no")
        if known.get(word, word) not in found.values() and word in known:
            found[theirs] = known[word]
        else:
            unclear.append((theirs, word))
    for theirs, word in unclear:
        free = [spelled for spelled, ours in known.items() if ours not in found.values()]
        nearest = difflib.get_close_matches(word, free, n=1, cutoff=0.75)
        if nearest:
            found[theirs] = known[nearest[0]]
    return found


def _frame(name, rows):
    numbered = [{"file": name, "row": number, **row} for number, row in enumerate(rows, 1)]
    return pl.DataFrame(numbered, schema=LINE)
