from datetime import date

import claim_files
import claim_rules
import polars as pl
import pytest

SOUND = {
    "file": "f",
    "row": 1,
    "claim_id": "C1",
    "line": 1,
    "member": "M1",
    "service_date": "2026-02-03",
    "procedure": "99213",
    "diagnoses": "E119",
    "quantity": "1",
    "unit": "UN",
    "amount": "10.00",
    "currency": "USD",
}


def judged(*changes, on="2026-03-01"):
    rows = [{**SOUND, "row": n, **change} for n, change in enumerate(changes, 1)]
    lines = pl.DataFrame(rows, schema=claim_files.LINE)
    return claim_rules.judged(lines, date=on).to_dicts()


def one(**change):
    return judged(change)[0]


def test_a_sound_line_is_left_alone():
    line = one()
    assert (line["reason"], line["repairs"]) == (None, "")
    assert (line["amount_usd"], line["units"], line["unit_kept"]) == (10.0, 1.0, "UN")


@pytest.mark.parametrize(
    "written", ["20260203", "03.02.2026", "3.2.2026", "02/03/2026", "3-Feb-2026", " 2026-02-03 "]
)
def test_a_date_in_another_format_is_understood(written):
    assert one(service_date=written)["day"] == date(2026, 2, 3)


def test_a_date_in_another_format_is_noted_as_repaired():
    assert one(service_date="20260203")["repairs"] == "service_date_format"


@pytest.mark.parametrize("written", ["2026-02-30", "13/25/2026", "soon", "1826-02-03"])
def test_an_impossible_date_is_quarantined(written):
    assert one(service_date=written)["reason"] == "bad_service_date"


def test_a_missing_date_is_taken_from_the_other_lines_of_the_claim():
    lines = judged({}, {"line": 2, "service_date": None})
    assert lines[1]["day"] == date(2026, 2, 3)
    assert lines[1]["repairs"] == "service_date_from_claim"


def test_a_missing_date_stays_missing_when_the_other_lines_disagree():
    lines = judged({}, {"line": 2, "service_date": "2026-02-04"}, {"line": 3, "service_date": ""})
    assert lines[2]["reason"] == "missing_service_date"


def test_an_unreadable_date_is_not_replaced_by_that_of_another_line():
    assert judged({}, {"line": 2, "service_date": "soon"})[1]["reason"] == "bad_service_date"


def test_service_on_the_business_date_is_no_future():
    lines = judged({"service_date": "2026-03-01"}, {"service_date": "2026-03-02"})
    assert [line["reason"] for line in lines] == [None, "service_date_in_future"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1,234.50", 1234.5),
        ("1.234,50", 1234.5),
        ("12,5", 12.5),
        ("$ 12.00", 12.0),
        ("12,345", 12345.0),
        ("0", 0.0),
    ],
)
def test_amounts_are_read_in_both_notations(written, read):
    assert one(amount=written)["amount_usd"] == read


@pytest.mark.parametrize(
    ("amount", "currency", "usd"),
    [("100", "Euro", 108.0), ("250", "ct", 2.5), ("100", "u.s.d", 100.0), ("10 €", None, 10.8)],
)
def test_amounts_become_us_dollars(amount, currency, usd):
    assert one(amount=amount, currency=currency)["amount_usd"] == usd


def test_a_missing_currency_is_the_contracts_dollar_and_noted():
    assert one(currency=None)["repairs"] == "currency_assumed"


@pytest.mark.parametrize(
    ("quantity", "unit", "kept"),
    [
        ("45", "MIN", (3.0, "UN")),
        ("2", "HR", (8.0, "UN")),
        ("0,5", "g", (500.0, "MG")),
        ("3", "each", (3.0, "UN")),
        (None, None, (1.0, "UN")),
    ],
)
def test_units_are_converted(quantity, unit, kept):
    line = one(quantity=quantity, unit=unit)
    assert (line["units"], line["unit_kept"], line["reason"]) == (*kept, None)


def test_misspelled_codes_are_mended():
    line = one(procedure=" 9O837 ", diagnoses="e11.9|I1O|o1o.919")
    assert line["procedure_code"] == "90837"
    assert line["diagnosis_codes"] == ["E119", "I10", "O10919"]
    assert "procedure_spelling" in line["repairs"]


def test_a_diagnosis_that_is_no_code_is_dropped_and_noted():
    line = one(diagnoses="E119|sick")
    assert line["diagnosis_codes"] == ["E119"]
    assert line["repairs"] == "diagnoses_reduced"


@pytest.mark.parametrize("written", ["blt-001", "BLT 001", "BLTOO1", "Blt001"])
def test_spellings_of_a_member_have_one_key(written):
    assert one(member=written)["key"] == "BLT001"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"claim_id": " "}, "missing_claim_id"),
        ({"member": "--"}, "missing_member"),
        ({"service_date": None}, "missing_service_date"),
        ({"procedure": "99-X"}, "bad_procedure_code"),
        ({"procedure": None, "diagnoses": None}, "no_service"),
        ({"amount": ""}, "missing_amount"),
        ({"amount": "n/a"}, "bad_amount"),
        ({"amount": "-5.00"}, "negative_amount"),
        ({"amount": "(5.00)"}, "negative_amount"),
        ({"currency": "ZZZ"}, "unknown_currency"),
        ({"quantity": "-1"}, "bad_quantity"),
        ({"quantity": "0"}, "bad_quantity"),
        ({"quantity": "some"}, "bad_quantity"),
        ({"unit": "FURLONG"}, "unknown_unit"),
        ({"problem": "unreadable_record"}, "unreadable_record"),
        ({"claim_id": None, "amount": None}, "missing_claim_id"),
    ],
)
def test_what_cannot_be_mended_has_a_reason(change, reason):
    assert one(**change)["reason"] == reason
