from datetime import date

import downstream
import polars as pl
import pytest
from coverage_spans import OPEN_END
from hccinfhir import HCCInFHIR, ServiceLevelData

DAY = date(2026, 3, 1)
SPANS = pl.DataFrame(
    [
        ("A", date(2025, 1, 1), date(2026, 1, 31)),
        ("A", date(2026, 2, 20), OPEN_END),
        ("B", date(2026, 2, 1), OPEN_END),
    ],
    schema={"member_id": pl.String, "start": pl.Date, "end": pl.Date},
    orient="row",
)
CLAIM = {
    "member_id": "A",
    "service_date": date(2026, 2, 25),
    "procedure_code": "99213",
    "diagnosis_codes": ["E119"],
    "amount_usd": 30.0,
    "facility_type": None,
    "service_type": None,
}
TYPES = {
    "member_id": pl.String,
    "service_date": pl.Date,
    "procedure_code": pl.String,
    "diagnosis_codes": pl.List(pl.String),
    "amount_usd": pl.Float64,
    "facility_type": pl.String,
    "service_type": pl.String,
}


def claims(*changes):
    return pl.DataFrame([{**CLAIM, **change} for change in changes], schema=TYPES)


def test_cost_per_member_per_month_divides_by_everybody_covered_that_month():
    costs = downstream.member_months(claims({}, {"amount_usd": 11.0}))
    by_month = {row["month"]: row for row in downstream.pmpm(costs, SPANS, DAY).to_dicts()}
    february = by_month[date(2026, 2, 1)]
    assert (february["members"], february["cost_usd"], february["pmpm_usd"]) == (2, 41.0, 20.5)
    assert by_month[date(2026, 1, 1)]["members"] == 1
    assert by_month[date(2026, 1, 1)]["pmpm_usd"] == 0.0


def test_the_summary_has_the_last_twelve_months_and_older_ones_with_claims():
    costs = downstream.member_months(claims({"service_date": date(2023, 5, 15)}))
    months = downstream.pmpm(costs, SPANS, DAY)["month"].to_list()
    assert (len(months), months[0], months[1]) == (13, date(2023, 5, 1), date(2025, 4, 1))


def test_a_month_in_which_nobody_was_covered_has_no_cost_per_member():
    costs = downstream.member_months(claims({"service_date": date(2023, 5, 15)}))
    assert downstream.pmpm(costs, SPANS, DAY)["pmpm_usd"].to_list()[0] is None


def test_only_services_that_hccinfhir_lets_through_give_diagnoses():
    changes = [{}, {"procedure_code": "H0003"}, {"facility_type": "1", "service_type": "1"}]
    found = downstream.risk_adjustable(claims(*changes, {"procedure_code": None}))
    assert found.select("procedure_code", "facility_type").rows() == [
        ("99213", None),
        ("99213", "1"),
    ]


def test_diagnoses_older_than_a_year_do_not_count():
    old = {"service_date": date(2025, 2, 28), "diagnosis_codes": ["I509"]}
    edge = {"service_date": date(2025, 3, 1), "diagnosis_codes": ["J449"]}
    codes = downstream.diagnoses_by_member(claims({}, old, edge), DAY)
    assert codes == {"A": ["E119", "J449"]}


def member(**known):
    row = {"member_id": "A", "dob": date(1950, 3, 2), "sex": "F", "dual_elgbl_cd": "02"}
    flags = dict.fromkeys(("snp", "low_income", "lti"), False)
    return {**row, **flags, "orec": None, "crec": None, **known}


def roster(*members):
    texts = dict.fromkeys(("member_id", "sex", "dual_elgbl_cd", "orec", "crec"), pl.String)
    flags = dict.fromkeys(("snp", "low_income", "lti"), pl.Boolean)
    return pl.DataFrame(members, schema={**texts, "dob": pl.Date, **flags})


@pytest.mark.parametrize(("since", "new"), [(date(2025, 11, 30), False), (date(2025, 12, 1), True)])
def test_a_score_equals_hccinfhirs_own(since, new):
    service = ServiceLevelData(
        claim_id="1", procedure_code="99213", claim_diagnosis_codes=["E119", "I509"]
    )
    theirs = HCCInFHIR(model_name=downstream.MODEL).run_from_service_data(
        [service], {"age": 75, "sex": "F", "dual_elgbl_cd": "02", "new_enrollee": new}
    )
    spans = pl.DataFrame([("A", since, OPEN_END)], schema=SPANS.schema, orient="row")

    ours = downstream.risk_scores(
        roster(member()), spans, claims({"diagnosis_codes": ["I509", "E119"]}), DAY
    ).to_dicts()[0]

    assert ours["age"] == 75
    assert ours["risk_score"] == pytest.approx(theirs.risk_score, abs=1e-4)
    assert ours["hccs"] == sorted(theirs.hcc_list, key=int)
    assert (ours["risk_score_hcc"] == 0) is new


def test_whom_nobody_covers_on_the_date_has_no_row_and_whose_birth_is_unknown_no_score():
    people = roster(member(), member(member_id="B", dob=None), member(member_id="GONE"))
    scores = downstream.risk_scores(people, SPANS, claims({}), DAY)
    assert scores.select("member_id", "unscored").rows() == [
        ("A", None),
        ("B", "no_birth_date_or_sex"),
    ]
