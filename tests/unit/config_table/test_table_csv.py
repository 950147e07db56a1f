"""The same table as CSV."""

import hashlib

import pytest

from airflow_ephemeral_ec2.config_table import check_table, load_table, load_table_text

LIMITS = """\
version: 1
aws: {aws_conn_id: aws_default, region: us-east-1, tags: {CostCenter: "4711"}}
limits: {vcpus: 96}
"""
HEADER = (
    "payer,job,ami,code,max_runtime,subnets,security_groups,instance_profile,priority,"
    "instance_types,command,depends_on,schedule,job_role,env.LEVEL,tags.Team"
)
AMI = "ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
CSV = f"""\
{HEADER}
*,*,{AMI},jobs/,1h,subnet-0a1|subnet-0b2,sg-0c3,payer-machine,,,,,,,info,
*,member,,,,,,,900,m7i.large,python3|member.py,,,,,
*,eligibility,,,,,,,,m7i.large,python3|eligibility.py,member,,,,
*,claims,,,,,,,,m7i.2xlarge,python3|claims.py,eligibility,,,debug,
acme,*,,,,,,,,,,,0 2 * * *,acme-data,,
acme,member,,,,,,,,,,,,,,data
acme,eligibility,,,,,,,,,,,,,,
acme,claims,,,30m,,,,,,,,,,,
pea,*,,,,,,,,,,,,pea-data,,
pea,member,,,,,,,,,,,,,,
pea,eligibility,,,,,,,,,,,,,,
pea,claims,,,,,,,,,,,,,,
"""


@pytest.fixture
def complain_csv(folder):
    (folder / "payers.limits.yaml").write_text(LIMITS)

    def complain_csv(*replacements):
        text = CSV
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        (folder / "payers.csv").write_text(text)
        return [
            (problem.line, problem.column, problem.message)
            for problem in check_table(folder / "payers.csv").problems
        ]

    return complain_csv


def test_csv_and_yaml_give_the_same_jobs(folder, right_text, complain_csv):
    plain = (("info,", ","), ("debug,", ","), (",data", ","))
    assert complain_csv(*plain) == []

    assert load_table(folder / "payers.csv").specs == load_table_text(right_text, "x.yaml").specs


def test_rows_with_stars_are_defaults(folder, complain_csv):
    complain_csv()
    table = load_table(folder / "payers.csv")

    assert table.find("acme", "member").env == {"LEVEL": "info"}
    assert table.find("acme", "claims").env == {"LEVEL": "debug"}
    assert table.find("acme", "claims").max_runtime == 1800
    assert table.find("acme", "member").tags == {"CostCenter": "4711", "Team": "data"}
    assert table.schedule("acme") == "0 2 * * *"
    assert table.limits.vcpus == 96


def test_a_job_without_a_row_of_its_own_does_not_exist(folder, complain_csv):
    assert complain_csv(("pea,claims,,,,,,,,,,,,,,\n", "")) == []

    assert [s.job for s in load_table(folder / "payers.csv").jobs("pea")] == [
        "member",
        "eligibility",
    ]


def test_the_version_covers_the_limits_beside_it(folder, complain_csv):
    complain_csv()

    expected = hashlib.sha256(CSV.encode() + LIMITS.encode()).hexdigest()
    assert load_table(folder / "payers.csv").sha256 == expected


def test_numbers_in_env_need_no_quotes(folder, complain_csv):
    assert complain_csv(("debug", "1")) == []

    assert load_table(folder / "payers.csv").find("pea", "claims").env == {"LEVEL": "1"}


WRONG = {
    "duration": ("30m", "30", 9, "max_runtime", "30: no unit; write 30m or 30s"),
    "column": ("max_runtime", "max_runtim", 1, "max_runtim", 'did you mean "max_runtime"?'),
    "column twice": (",code,", ",ami,", 1, "ami", "written twice"),
    "env alone": ("env.LEVEL", "env", 1, "env", "write one column per name, like env.NAME"),
    "no payer column": ("payer,job", "customer,job", 1, "payer", "this column is missing"),
    "semicolons": (HEADER, HEADER.replace(",", ";"), 1, "job", "separated by commas"),
    "row twice": ("acme,eligibility", "acme,member", 8, "job", "written twice, first in line 7"),
    "no payer": ("acme,eligibility", ",eligibility", 8, "payer", "empty; write a name"),
    "cells": ("acme,eligibility,", "acme,eligibility", 8, "", "15 cells, the first row has 16"),
    "schedule of a job": (
        "acme,eligibility,,,,,,,,,,,,", "acme,eligibility,,,,,,,,,,,@daily,",
        8, "schedule", "write it in the row acme,* or *,*",
    ),
    "default for nobody": ("*,member", "*,membr", 3, "job", 'no payer has a row for this job; did you mean "member"?'),
    "payer without jobs": ("pea,*", "peas,*", 10, "payer", 'no row names a job of it; did you mean "pea"?'),
    "dependency": ("py,member", "py,membr", 4, "depends_on", 'did you mean "member"?'),
    "type": ("m7i.2xlarge", "m7i.large|m7i.lagre", 5, "instance_types", 'did you mean "m7i.large"?'),
    "number": ("900", "many", 3, "priority", '"many": write a whole number'),
    "missing": ("sg-0c3", "", 2, "security_groups", "missing; write it in the row *,*"),
    "quote": ("sg-0c3", '"sg-0c3', 13, "", "not CSV"),
    "name": ("acme,eligibility", "ac me,eligibility", 8, "payer", "not a name of a payer"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_row_and_column(name, complain_csv):
    old, new, line, column, message = WRONG[name]

    found = complain_csv((old, new))

    assert any((line, column) == at[:2] and message in at[2] for at in found), found


def test_a_cell_over_two_lines_does_not_shift_the_count(complain_csv):
    found = complain_csv(("python3|member.py", '"python3|\nmember.py"'), ("30m", "30"))

    assert [at[0] for at in found] == [10]


def test_a_secret_in_a_column_is_not_shown(complain_csv):
    found = complain_csv(("env.LEVEL", "env.API_KEY"), ("debug", "hunter2"))

    assert [at[:2] for at in found] == [(2, "env.API_KEY"), (5, "env.API_KEY")]
    assert "hunter2" not in str(found)


def test_errors_in_the_limits_name_their_file(folder, complain_csv):
    complain_csv()
    (folder / "payers.limits.yaml").write_text(LIMITS.replace("vcpus: 96", "vcpus: 4"))

    (problem,) = check_table(folder / "payers.csv").problems
    assert "line 3 of payers.limits.yaml" in problem.message
    (folder / "payers.limits.yaml").write_text(LIMITS.replace("vcpus", "vcpu"))
    (problem,) = check_table(folder / "payers.csv").problems
    assert (problem.path, problem.line) == (str(folder / "payers.limits.yaml"), 3)


@pytest.mark.parametrize("text", ["", "\n\n", "payer,job\n", "payer,job\n*,*\n"])
def test_a_table_without_a_job_is_refused(text, folder):
    (folder / "payers.csv").write_text(text)

    assert check_table(folder / "payers.csv").problems
