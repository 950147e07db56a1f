from datetime import date

import claim_files
import claims
import polars as pl
from coverage_spans import OPEN_END
from hypothesis import given
from hypothesis import strategies as st

ROSTER = pl.DataFrame(
    [
        ("A", "CARD-1", None, None),
        ("B", "CARD-2", "MBI2", None),
        ("C", "SHARED", None, None),
        ("D", "SHARED", None, None),
    ],
    schema=dict.fromkeys(("member_id", "card_id", "mbi", "medicaid_id"), pl.String),
    orient="row",
)
SPANS = pl.DataFrame(
    [
        ("A", date(2026, 1, 1), date(2026, 1, 31)),
        ("A", date(2026, 2, 10), OPEN_END),
        ("B", date(2020, 1, 1), OPEN_END),
    ],
    schema={"member_id": pl.String, "start": pl.Date, "end": pl.Date},
    orient="row",
)


def lines(*changes):
    sound = {"claim_id": "C1", "line": 1, "member": "A", "service_date": "2026-02-20"}
    sound |= {"procedure": "99213", "amount": "10", "currency": "USD", "file": "f"}
    rows = [{**sound, "row": n, **change} for n, change in enumerate(changes, 1)]
    return pl.DataFrame(rows, schema=claim_files.LINE)


def sort_out(*changes, earlier=()):
    return claims.sorted_out(
        lines(*changes), date="2026-03-01", roster=ROSTER, spans=SPANS, earlier=earlier
    )


def test_a_line_belongs_to_the_member_whose_card_or_number_it_names():
    changes = [{"member": name, "line": n} for n, name in enumerate(("a", "card 2", "MBI2"))]
    clean, _, _ = sort_out(*changes)
    assert clean["member_id"].to_list() == ["A", "B", "B"]


def test_what_no_eligible_member_owns_is_quarantined_with_the_reason():
    days = ("2026-01-31", "2026-02-01", "2026-02-09", "2026-02-10")
    changes = [{"service_date": day} for day in days] + [{"member": "X"}, {"member": "SHARED"}]

    clean, rejected, _ = sort_out(*changes)

    assert [day.isoformat() for day in clean["service_date"]] == ["2026-01-31", "2026-02-10"]
    assert rejected.select("row", "reason").rows() == [
        (2, "not_covered_on_service_date"),
        (3, "not_covered_on_service_date"),
        (5, "member_unknown"),
        (6, "member_ambiguous"),
    ]


def test_a_quarantined_line_keeps_what_was_delivered():
    _, rejected, _ = sort_out({"member": "x-1", "amount": "1,50", "currency": "Euro"})
    assert rejected.select("member", "amount", "currency").rows() == [("x-1", "1,50", "Euro")]


def test_one_line_sent_twice_in_different_spellings_counts_once():
    again = {"member": "card-1", "service_date": "20.02.2026", "amount": "1000", "currency": "ct"}
    clean, _, duplicates = sort_out({}, again, {"line": 2})
    assert clean["row"].to_list() == [1, 3]
    assert duplicates == 1


def test_a_line_that_an_earlier_date_has_is_a_duplicate():
    before, _, _ = sort_out({})
    clean, _, duplicates = sort_out({}, {"line": 2}, earlier=[before.select(claims.SAME_LINE)])
    assert (clean["line"].to_list(), duplicates) == ([2], 1)


wild = st.fixed_dictionaries(
    {},
    optional={
        "claim_id": st.sampled_from(["C1", "C2", "", None]),
        "member": st.sampled_from(["A", "CARD-1", "B", "zz", None]),
        "service_date": st.sampled_from(["20260220", "2026-02-01", "x", "", "2027-01-01"]),
        "amount": st.sampled_from(["10", "10,00", "-1", "", "x"]),
        "currency": st.sampled_from(["USD", "Euro", "?", None]),
        "quantity": st.sampled_from(["1", "0", "x", None]),
    },
)


@given(st.lists(wild, max_size=8))
def test_every_line_is_clean_or_quarantined_or_a_duplicate(changes):
    clean, rejected, duplicates = sort_out(*changes)
    rows = [*clean["row"], *rejected["row"]]
    assert len(rows) == len(set(rows))
    assert len(rows) + duplicates == len(changes)
