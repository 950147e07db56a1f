"""A row cannot loosen the shape of a launch, wherever it tries."""

import pytest

from airflow_ephemeral_ec2.config_table import check_table_text
from airflow_ephemeral_ec2.config_table.launch_shape import refuse_loosening


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("associate_public_ip_address", "private address"),
        ("public_ip", "private address"),
        ("PublicIp", "private address"),
        ("Key Name", "logs in"),
        ("HTTPTokens", "IMDSv2"),
        ("tenancy", "outlives its job"),
        ("key_name", "logs in"),
        ("shutdown_behavior", "powers off is gone"),
        ("http_tokens", "IMDSv2"),
        ("hop-limit", "one hop"),
        ("encrypted", "always encrypted"),
        ("delete_on_termination", "outlives"),
        ("auto_recovery", "second time"),
        ("user_data", "watchdog"),
        ("launch_template", "launch template"),
        ("disable_api_termination", "powers off"),
        ("spot_instance_type", "nobody asked for"),
    ],
)
def test_L33_L37_a_setting_that_loosens_the_launch_is_refused_with_the_reason(name, word):
    """A row asks for a public address, a persistent spot request, an open reservation..."""
    assert word in refuse_loosening(name)


@pytest.mark.parametrize("name", ["ami", "instance_types", "pub", "command"])
def test_no_other_word_is_refused_like_this(name):
    assert refuse_loosening(name) is None


def test_a_name_in_env_or_tags_is_the_users_own():
    yaml = check_table_text(
        "version: 1\ndefaults:\n  env: {public_ip: a}\n  tags: {encrypted: b}\njobs: {a: {}}\n",
        "payers.yaml",
    )
    csv = check_table_text("payer,job,env.public_ip,tags.encrypted\nacme,a,1,2\n", "payers.csv")

    found = [str(problem) for problem in (*yaml.problems, *csv.problems)]
    assert not [text for text in found if "not for a row to change" in text]


def test_the_reason_stands_at_its_line_in_yaml_and_csv():
    yaml = check_table_text(
        "version: 1\ndefaults:\n  public_ip: true\njobs:\n  a:\n    encrypted: false\n"
        "payers:\n  acme: {key_name: me}\n",
        "payers.yaml",
    )
    csv = check_table_text("payer,job,command,http_tokens\nacme,a,true,optional\n", "payers.csv")

    found = [str(problem) for problem in yaml.problems]
    assert any(t.startswith("payers.yaml:3") and "private address" in t for t in found)
    assert any(t.startswith("payers.yaml:6") and "always encrypted" in t for t in found)
    assert any(t.startswith("payers.yaml:8") and "logs in" in t for t in found)
    assert any("http_tokens" in str(p) and "IMDSv2" in str(p) for p in csv.problems)
