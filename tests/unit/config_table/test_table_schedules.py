"""Schedules of payers: cron or assets, and none that would start itself again."""

import pytest

from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.model.schedule import (
    AssetSchedule,
    find_payer,
    name_job_asset,
    name_payer_asset,
    parse_schedule,
)

CRON = '"0 2 * * *"'


@pytest.mark.parametrize(
    ("text", "uris", "when"),
    [
        ("asset:s3://data/acme", ("s3://data/acme",), "all"),
        ("asset:s3://a/b & asset:s3://c/d", ("s3://a/b", "s3://c/d"), "all"),
        ("asset:s3://a/b & s3://c/d", ("s3://a/b", "s3://c/d"), "all"),
        ("asset:s3://a/b | asset:s3://c/d", ("s3://a/b", "s3://c/d"), "any"),
        ("asset:s3://a/b?x=1&y=2", ("s3://a/b?x=1&y=2",), "all"),
        ("asset:s3://a/b & asset:s3://a/b", ("s3://a/b",), "all"),
    ],
)
def test_assets_are_read_one_all_or_any(write, text, uris, when):
    table = load_table(write((CRON, f'"{text}"')))

    assert parse_schedule(table.schedule("acme")) == AssetSchedule(uris, when)


def test_cron_stays_cron():
    assert parse_schedule("0 2 * * *") == "0 2 * * *"


def test_a_csv_cell_may_hold_assets_of_which_any_counts(write):
    text = (
        "payer,job,instance_types,command,ami,subnets,security_groups,instance_profile,region,schedule\n"
        "*,*,m7i.large,true,ami-1,subnet-1,sg-1,p,us-east-1,\n"
        "acme,*,,,,,,,,asset:s3://a/b | asset:s3://c/d\n"
        "acme,member,,,,,,,,\n"
    )

    table = load_table(write(text=text, name="payers.csv"))

    assert parse_schedule(table.schedule("acme")) == AssetSchedule(("s3://a/b", "s3://c/d"), "any")


REFUSED = {
    "no uri": ("asset:", '"": not a URI; write "asset:" and a URI'),
    "a name": ("asset:orders", '"orders": not a URI'),
    "blank": ("asset:s3://a/b c", "not a URI"),
    "second one empty": ("asset:s3://a/b & asset:", '"": not a URI'),
    "both words": ("asset:s3://a & s3://b | s3://c", 'both " & " (all) and " | " (any)'),
    "wrong word": ("dataset:s3://a/b", 'write "asset:" and a URI'),
    "wrong case": ("Asset:s3://a/b", 'write "asset:" and a URI'),
    "no word": ("s3://a/b", 'write "asset:" and a URI'),
    "airflow's own": ("asset:airflow://a/b", "the scheme airflow is Airflow's own"),
    "too long": (f"asset:s3://{'a' * 1500}", "a URI of 1,505 characters; at most 1,500"),
    "its own asset": ("asset:ephemeral-ec2://payer/acme", "acme -> acme: would start itself again"),
    "its own job": ("asset:ephemeral-ec2://payer/acme/claims", "acme -> acme: would start itself"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_schedule_that_is_none_says_what_to_write(complain, text, message):
    said = complain((CRON, f'"{text}"'))

    assert "acme.schedule" in said
    assert message in said


def test_payers_that_start_each_other_are_a_loop(complain):
    said = complain(
        (CRON, '"asset:ephemeral-ec2://payer/pea"'),
        (
            "{job_role: pea-data}",
            '{schedule: "asset:s3://x/y | ephemeral-ec2://payer/acme/claims"}',
        ),
    )

    assert "acme -> pea -> acme: would start itself again for ever" in said


def test_a_payer_may_wait_for_another(write):
    table = load_table(write((CRON, '"asset:ephemeral-ec2://payer/pea"')))

    assert table.schedule("acme") == "asset:ephemeral-ec2://payer/pea"


def test_the_assets_name_payer_and_job():
    assert name_payer_asset("acme") == "ephemeral-ec2://payer/acme"
    assert name_job_asset("acme", "claims") == "ephemeral-ec2://payer/acme/claims"
    assert find_payer(name_payer_asset("acme")) == "acme"
    assert find_payer(name_job_asset("acme", "claims")) == "acme"
    assert find_payer("s3://payer/acme") is None
