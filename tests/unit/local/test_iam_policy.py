"""IAM's evaluation, as far as the local EC2 knows it."""

import pytest

from airflow_ephemeral_ec2.local.iam_policy import fill_variables, is_allowed

ARN = "arn:aws:ec2:us-east-1:123456789012:instance/i-0a"
OWN = f"arn:aws:s3:::b/demo/machines/{ARN}/report.json"
OTHER = f"arn:aws:s3:::b/demo/machines/{ARN}b/report.json"


def _policy(effect="Allow", action="s3:PutObject", resource="*", **more):
    statement = {"Effect": effect, "Action": action, "Resource": resource, **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


_OWN_FOLDER = _policy(resource="arn:aws:s3:::b/demo/machines/${ec2:SourceInstanceARN}/*")


def test_a_machine_may_write_below_its_own_arn_only():
    context = {"ec2:SourceInstanceARN": ARN}

    assert is_allowed([_OWN_FOLDER], "s3:PutObject", (OWN,), context)
    assert not is_allowed([_OWN_FOLDER], "s3:PutObject", (OTHER,), context)


def test_an_unknown_variable_matches_nothing():
    assert not is_allowed([_OWN_FOLDER], "s3:PutObject", (OWN,), {})


def test_a_value_with_a_star_does_not_become_a_wildcard_in_another_place():
    assert fill_variables("a/${*}/b", {}) == "a/[*]/b"


@pytest.mark.parametrize(
    ("action", "allowed"),
    [("s3:PutObject", True), ("s3:putobject", True), ("s3:PutObjectAcl", False)],
)
def test_actions_match_whole_and_in_any_case(action, allowed):
    assert is_allowed([_policy()], action, ("arn:aws:s3:::b/k",), {}) is allowed


def test_deny_wins_over_allow_in_any_order():
    deny = _policy("Deny", "s3:*", "arn:aws:s3:::b/secret/*")
    allow = _policy(action="s3:*")

    for documents in ([deny, allow], [allow, deny]):
        assert not is_allowed(documents, "s3:GetObject", ("arn:aws:s3:::b/secret/k",), {})
        assert is_allowed(documents, "s3:GetObject", ("arn:aws:s3:::b/open",), {})


@pytest.mark.parametrize(("header", "allowed"), [({"s3:if-none-match": "*"}, True), ({}, False)])
def test_a_condition_on_conditional_writes_is_enforced(header, allowed):
    policy = _policy(Condition={"StringEquals": {"s3:if-none-match": "*"}})

    assert is_allowed([policy], "s3:PutObject", ("arn:aws:s3:::b/k",), header) is allowed


def test_an_unknown_operator_never_allows_and_always_denies():
    odd = {"Condition": {"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}}
    allow, deny = _policy(**odd), _policy("Deny", **odd)

    assert not is_allowed([allow], "s3:PutObject", ("r",), {})
    assert not is_allowed([_policy(), deny], "s3:PutObject", ("r",), {})


@pytest.mark.parametrize(
    ("operator", "wanted", "context", "holds"),
    [
        ("StringLike", "in/*", {"k": "in/acme"}, True),
        ("StringLike", "in/*", {"k": "out"}, False),
        ("StringNotEquals", "a", {"k": "b"}, True),
        ("StringNotEquals", "a", {}, True),
        ("StringEqualsIfExists", "a", {}, True),
        ("Null", "true", {}, True),
        ("Null", "true", {"k": "x"}, False),
        ("ArnLike", "arn:aws:iam::*:role/x", {"k": "arn:aws:iam::1:role/x"}, True),
    ],
)
def test_condition_operators(operator, wanted, context, holds):
    policy = _policy(Condition={operator: {"k": wanted}})

    assert is_allowed([policy], "s3:PutObject", ("r",), context) is holds


def test_brackets_in_a_pattern_are_plain_characters():
    policy = _policy(resource="arn:aws:s3:::b/[abc]/*")

    assert is_allowed([policy], "s3:PutObject", ("arn:aws:s3:::b/[abc]/k",), {})
    assert not is_allowed([policy], "s3:PutObject", ("arn:aws:s3:::b/a/k",), {})


def test_not_action_and_not_resource_turn_around():
    policy = {"Statement": {"Effect": "Allow", "NotAction": "iam:*", "NotResource": "secret/*"}}

    assert is_allowed([policy], "s3:GetObject", ("open/k",), {})
    assert not is_allowed([policy], "iam:GetRole", ("open/k",), {})
    assert not is_allowed([policy], "s3:GetObject", ("secret/k",), {})
