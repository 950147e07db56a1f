"""What a person asks of a run: read strictly, applied to a row, or refused with what is allowed."""

import pytest

from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.run_request import (
    ALL_FIELDS,
    RunRequest,
    find_deciding_jobs,
    has_form,
    is_skipped,
    parse_run_request,
)

JOBS = ("member", "eligibility", "claims", "downstream")
CHAIN = {"member": (), "eligibility": ("member",), "claims": ("eligibility",)}


def test_an_empty_form_asks_for_nothing(make_spec):
    spec = make_spec()

    for params in (
        {},
        dict.fromkeys(ALL_FIELDS),
        {"jobs": [], "instance_types": {}, "reason": " "},
    ):
        request = parse_run_request(params, JOBS)
        assert request == RunRequest()
        assert request.apply(spec) == spec
        assert all(request.wants(job) for job in JOBS)
        assert (request.priority_reason, request.order_override) == ("", "")


def test_a_whole_form_is_read_and_applied_to_the_row_it_names(make_spec):
    params = {
        "business_date": "2026-03-01",
        "jobs": ["claims", "member", "claims"],
        "instance_types": {"claims": ["m7i.4xlarge", "m6i.4xlarge"]},
        "priority": 9000,
        "ignore_order": True,
        "reason": " late file ",
        "dry_run": True,
    }

    request = parse_run_request(params, JOBS)
    changed = request.apply(make_spec(job="claims", priority=500))
    other = request.apply(make_spec(job="member"))

    assert request.jobs == ("claims", "member")
    assert not request.wants("eligibility")
    assert changed.instance_types == ("m7i.4xlarge", "m6i.4xlarge")
    assert (changed.priority, other.priority) == (9000, 9000)
    assert other.instance_types == make_spec().instance_types
    assert request.dry_run
    assert (request.priority_reason, request.order_override) == ("late file", "late file")


def test_a_reason_for_another_size_is_neither_one_for_priority_nor_for_order():
    request = parse_run_request(
        {"instance_types": {"claims": "m7i.4xlarge"}, "reason": "twice the data"}, JOBS
    )

    assert (request.priority_reason, request.order_override) == ("", "")


REFUSED = {
    "unknown job": ({"jobs": ["claim"]}, r"parameter jobs: 'claim': .*no such job; did you mean 'claims'\? Known: member, "),
    "job is no text": ({"jobs": [7]}, "parameter jobs: 7: the payer has no such job Known:"),
    "jobs no list": ({"jobs": "claims"}, r"parameter jobs: 'claims': not a list"),
    "jobs a map": ({"jobs": {"claims": True}}, "parameter jobs: .*not a list"),
    "unknown job of a size": ({"instance_types": {"membr": "m7i.large"}}, "did you mean 'member'"),
    "sizes no map": ({"instance_types": ["m7i.large"]}, "parameter instance_types: .*not a map"),
    "no instance type": ({"instance_types": {"claims": "m7i-large"}}, "claims: 'm7i-large' is not an instance type; write a family"),
    "no text": ({"instance_types": {"claims": 2}}, "claims: 2 is not an instance type"),
    "no types": ({"instance_types": {"claims": []}}, "claims: empty; name at least one"),
    "size of a job left out": ({"jobs": ["member"], "instance_types": {"claims": "m7i.large"}}, r"'claims' is not among jobs \(member\)"),
    "priority too high": ({"priority": 10_001, "reason": "r"}, "parameter priority: 10,001: write a whole number, 0 to 10,000"),
    "priority negative": ({"priority": -1, "reason": "r"}, "parameter priority: -1"),
    "priority text": ({"priority": "900", "reason": "r"}, "parameter priority: '900'"),
    "priority true": ({"priority": True, "reason": "r"}, "parameter priority: True"),
    "priority float": ({"priority": 900.5, "reason": "r"}, "parameter priority: 900.5"),
    "priority without reason": ({"priority": 900}, "parameter priority: needs a reason"),
    "priority 0 without reason": ({"priority": 0}, "parameter priority: needs a reason"),
    "blank reason": ({"priority": 900, "reason": "  "}, "parameter priority: needs a reason"),
    "order without reason": ({"ignore_order": True}, "parameter ignore_order: needs a reason"),
    "nothing to justify": ({"reason": "because"}, "parameter reason: nothing to justify"),
    "reason no text": ({"reason": 4, "priority": 1}, "parameter reason: 4: write one line"),
    "reason too long": ({"reason": "x" * 201, "priority": 1}, "parameter reason: 201 characters; at most 200"),
    "reason of two lines": ({"reason": "a\nb", "priority": 1}, "parameter reason: line breaks"),
    "flag as text": ({"dry_run": "false"}, "parameter dry_run: 'false': write true or false"),
    "flag as number": ({"ignore_order": 1, "reason": "r"}, "parameter ignore_order: 1: write true or false"),
    "a name that nearly is ours": ({"dry_rn": True}, "parameter dry_rn: no such parameter; did you mean 'dry_run'"),
}  # fmt: skip


@pytest.mark.parametrize(("params", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(params, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_run_request(params, JOBS)


def test_parameters_of_somebody_else_are_left_alone():
    assert parse_run_request({"ticket": "OPS-1", "data_centre": 4}, JOBS) == RunRequest()


def test_a_dag_with_some_of_the_names_has_no_form():
    assert has_form(dict.fromkeys(ALL_FIELDS))
    assert not has_form({"jobs": [1], "priority": "high", "business_date": None})


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ((), ("eligibility",)),
        (("claims", "eligibility"), ("eligibility",)),
        (("claims", "member"), ("member",)),
        (("claims",), ()),
    ],
)
def test_a_job_that_the_run_leaves_out_passes_on_what_was_before_it(jobs, expected):
    assert find_deciding_jobs("claims", CHAIN, RunRequest(jobs=jobs).wants) == expected


def test_each_job_before_is_named_once():
    diamond = {"end": ("left", "right"), "left": ("start",), "right": ("start",), "start": ()}

    wants = RunRequest(jobs=("start", "end")).wants

    assert find_deciding_jobs("end", diamond, wants) == ("start",)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["skipped"], True),
        (["skipped", "skipped"], True),
        (["skipped", "success"], False),
        (["success"], False),
        ([], False),
    ],
)
def test_a_mapped_task_is_skipped_when_all_its_parts_are(states, expected):
    assert is_skipped(states) is expected
