"""What docs/files.md shows is what the code does."""

import json
import re
from pathlib import Path

import yaml

from airflow_ephemeral_ec2.config_table import check_table_text
from airflow_ephemeral_ec2.hooks.file_queue import VISIBILITY_SECONDS
from airflow_ephemeral_ec2.model.landing import UNFINISHED_SUFFIXES
from tests.unit.conftest import TABLE

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "files.md").read_text(encoding="utf-8")
CALLS = {"receive_message": "sqs:ReceiveMessage", "delete_message": "sqs:DeleteMessage"}


def test_the_example_is_a_table():
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    table = yaml.safe_load(TABLE) | yaml.safe_load(text)

    found = check_table_text(json.dumps(table), "payers.yaml")

    assert found.problems == ()
    assert found.table.files("acme").files == "s3://landing/acme/*.csv"


def test_policy_and_notification_name_the_same_queue():
    policy, notification = (
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    )

    [told] = notification["QueueConfigurations"]
    assert policy["Statement"][0]["Resource"] == told["QueueArn"]
    assert told["Events"] == ["s3:ObjectCreated:*"]


def test_the_names_of_half_uploaded_files_are_those_of_the_code():
    [row] = [line for line in PAGE.splitlines() if line.startswith("| half uploaded: ")]

    assert tuple(re.findall(r"`([^`]+)`", row.split(" at the end")[0])) == UNFINISHED_SUFFIXES


def test_a_message_comes_again_after_as_long_as_the_page_says():
    assert f"comes again after {VISIBILITY_SECONDS // 60} minutes" in PAGE


def test_every_call_to_sqs_has_its_permission_on_the_page_of_operating():
    source = Path(__file__).parents[2] / "airflow_ephemeral_ec2" / "hooks" / "file_queue.py"
    made = set(re.findall(r"_sqs\.(\w+)\(", source.read_text(encoding="utf-8")))
    page = (DOCS / "operating.md").read_text(encoding="utf-8")

    assert made == set(CALLS)
    assert all(f"`{permission}`" in page for permission in CALLS.values())
