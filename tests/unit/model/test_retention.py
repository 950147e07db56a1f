"""Which lifecycle rules would delete what may still be needed."""

import re

import pytest

from airflow_ephemeral_ec2.model.retention import find_retention_problems, recommended_rules


def rule(prefix, days, **more):
    return {
        "ID": "r",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
    } | more


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (rule("prod/jobs/", 399), ["prod/jobs/"]),
        (rule("prod/jobs/", 400), []),
        (rule("prod/machines/", 30), []),
        (rule("prod/machines/", 7), ["prod/machines/"]),
        (rule("prod/queue/", 4_000), ["prod/queue/"]),
        (rule("prod/environment.json", 4_000), ["prod/environment.json"]),
        (rule("other/", 1), []),
        (rule("prod/jobs/abc", 1), ["prod/jobs/"]),
        (rule("prod/jobs/", 1, Status="Disabled"), []),
        (
            {"ID": "r", "Status": "Enabled", "Prefix": "prod/jobs/", "Expiration": {"Days": 5}},
            ["prod/jobs/"],
        ),
        (
            {
                "ID": "r",
                "Status": "Enabled",
                "Filter": {"And": {"Prefix": "prod/jobs/", "Tags": []}},
                "Expiration": {"Date": "2027-01-01"},
            },
            ["prod/jobs/"],
        ),
        (
            {
                "ID": "r",
                "Status": "Enabled",
                "Filter": {"Prefix": "prod/jobs/"},
                "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
            },
            ["prod/jobs/"],
        ),
        (
            {
                "ID": "r",
                "Status": "Enabled",
                "Filter": {"Prefix": "prod/jobs/"},
                "Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}],
            },
            [],
        ),
        (rule("", 1, Filter={"Tag": {"Key": "scratch", "Value": "yes"}}), []),
        (rule("", 1, Filter={"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}}), []),
        (
            {
                "ID": "r",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
            [],
        ),
    ],
)
def test_a_rule_that_deletes_too_early_is_named(given, named):
    problems = find_retention_problems([given], "prod")

    assert [re.split(" deletes | archives ", p)[1].split()[0] for p in problems] == named
    assert all("'r'" in p and "allowed: " in p for p in problems)


def test_a_rule_for_everything_is_a_problem_for_each_part():
    problems = find_retention_problems([rule("", 10)], "prod")

    assert len(problems) == 9


def test_the_recommended_rules_are_fine():
    assert find_retention_problems(recommended_rules("prod"), "prod") == []
