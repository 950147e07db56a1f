import gzip
import json
from importlib import resources

import claim_files
import pytest
import x12_files
from endings import BrokenInput
from hccinfhir import get_837_sample, get_eob_sample_list

HEADER = "Clm#;Ln;Mbr_Reff;Svc Dt;Ammount"


def csv(*rows, header=HEADER):
    return gzip.compress("\n".join([header, *rows]).encode(), mtime=0)


def test_an_837_gives_hccinfhirs_lines_with_charge_unit_and_number():
    lines = claim_files.from_837("c.837", get_837_sample(12)).to_dicts()
    assert len(lines) == 8
    assert [(x["claim_id"], x["line"], x["amount"], x["unit"]) for x in lines[:3]] == [
        ("12345", 1, "150.00", "UN"),
        ("4742333269", 1, "93", "UN"),
        ("4742333269", 2, "4", "UN"),
    ]
    assert lines[0]["diagnoses"] == "I109"


@pytest.mark.parametrize("number", range(13))
def test_every_sample_837_is_a_whole_interchange(number):
    x12_files.whole_interchange("c.837", get_837_sample(number), "837")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: text.replace("~SE*", "~XX*", 1), "not closed"),
        (lambda text: text.replace("IEA*1*000000001", "IEA*1*000000002"), "control numbers"),
        (lambda text: text.replace("~ST*837", "~ST*999"), "not an X12 837"),
        (lambda text: "PK" + text, "not an X12 interchange"),
        (lambda text: text[:0], "not an X12 interchange"),
    ],
)
def test_a_damaged_837_is_refused_with_a_reason_and_no_content(damage, said):
    with pytest.raises(BrokenInput, match=said) as refused:
        claim_files.from_837("c.837", damage(get_837_sample(12)))
    assert "TEST" not in str(refused.value)


def test_binary_data_is_no_837():
    with pytest.raises(BrokenInput, match="binary"):
        claim_files.read_lines("c.837", b"ISA\x00\x01")


def test_the_payment_of_a_fhir_claim_stands_on_its_first_line():
    record = get_eob_sample_list(1)[0]
    record["item"] = record["item"] * 2
    for item in record["item"]:
        item["productOrService"] = {"coding": [hcpcs("99213")]}
    lines = claim_files.from_fhir("c.ndjson", json.dumps(record).encode()).to_dicts()
    assert [(line["line"], line["amount"]) for line in lines] == [(1, "22436.56"), (2, "0")]
    assert lines[0]["currency"] == "USD"


def hcpcs(code):
    return {"system": "https://bluebutton.cms.gov/resources/codesystem/hcpcs", "code": code}


def test_a_pharmacy_claim_costs_what_its_drugs_cost():
    records = [r for r in get_eob_sample_list(200) if r["id"].startswith("pde")]
    text = "\n".join(json.dumps(record) for record in records)
    lines = claim_files.from_fhir("c.ndjson", text.encode())
    assert lines["amount"].null_count() == 0


def test_an_unreadable_fhir_record_is_marked_and_the_others_are_read():
    text = json.dumps(get_eob_sample_list(1)[0]) + '\n{"resourceType": "Pat\n[]\n'
    lines = claim_files.from_fhir("c.ndjson", text.encode())
    assert lines["problem"].to_list() == [None, "unreadable_record", "unreadable_record"]


def test_a_file_without_one_readable_fhir_record_is_broken():
    with pytest.raises(BrokenInput, match="not one readable"):
        claim_files.from_fhir("c.ndjson", b"{}\n{}\n")


def test_a_misspelled_header_is_understood():
    lines = claim_files.from_csv("c.csv.gz", csv("C1;1;M1;2026-02-03;5")).to_dicts()
    assert lines[0]["claim_id"] == "C1"
    assert lines[0]["member"] == "M1"
    assert lines[0]["service_date"] == "2026-02-03"
    assert lines[0]["amount"] == "5"
    assert lines[0]["problem"] is None


def test_two_columns_never_become_one():
    names = claim_files.column_names(["amount", "Ammount", "qty", "quantety"])
    assert list(names.values()) == ["amount", "quantity"]


def test_a_header_without_a_needed_column_is_broken_as_a_whole():
    with pytest.raises(BrokenInput, match="no column for member, amount"):
        claim_files.from_csv("c.csv.gz", csv("C1;1;M1;2026-02-03", header="Clm#;Ln;Mbr;Svc Dt"))


def test_a_row_with_too_many_fields_is_marked_and_one_with_too_few_is_kept():
    lines = claim_files.from_csv("c.csv.gz", csv("C1;1;M;1;2026-02-03;5", "C2;1;M1", "", "C3;1"))
    assert lines["problem"].to_list() == ["too_many_fields", None, None]
    assert lines["row"].to_list() == [1, 2, 3]


def test_a_quotation_mark_does_not_swallow_the_rows_after_it():
    lines = claim_files.from_csv("c.csv.gz", csv('"C1;1;M1;2026-02-03;5', "C2;1;M1;2026-02-03;5"))
    assert lines.height == 2


@pytest.mark.parametrize(
    "body", [b"no gzip", csv("C1;1;M1;2026-02-03;5")[:-9], gzip.compress(b"", mtime=0)]
)
def test_a_csv_that_did_not_arrive_whole_is_broken(body):
    with pytest.raises(BrokenInput):
        claim_files.from_csv("c.csv.gz", body)


def test_the_sample_834_gives_members_with_both_identifiers():
    sample = resources.files("hccinfhir") / "sample_files" / "sample_834_01.txt"
    members = x12_files.read_members("e.834", sample.read_text())
    assert [(m["member_id"], m["card_id"]) for m in members[:2]] == [
        ("MBR001", "TESTMBR000000001"),
        ("MBR002", "TESTMBR000000002"),
    ]
    assert members[1]["coverage"] == [
        {"plan": "", "start": "2023-05-15", "end": None},
        {"plan": "", "start": "2024-01-01", "end": None},
    ]
