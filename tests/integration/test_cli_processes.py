"""The command line as a process of its own: what it loads, and what a pipe gets."""

import gzip
import json
import subprocess
import sys

import pytest

TABLE = """\
version: 1
aws: {region: us-east-1}
defaults:
  ami: ami-0123456789abcdef0
  subnets: [subnet-0a1]
  security_groups: [sg-0c3]
  instance_profile: payer-machine
jobs:
  claims: {instance_types: [m7i.large], command: [python3, claims.py]}
payers:
  acme: {}
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "payers.yaml"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    "words", [["validate", "TABLE"], ["plan", "TABLE", "acme", "claims", "--date", "2026-03-01"]]
)
def test_what_needs_no_aws_loads_neither_airflow_nor_boto3(table, words):
    script = (
        "import sys, json\n"
        "from airflow_ephemeral_ec2.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "sys.stderr.write(json.dumps([code, sorted({'airflow', 'boto3'} & set(sys.modules))]))\n"
    )
    arguments = [str(table) if word == "TABLE" else word for word in words]

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stderr) == [0, []]


def test_a_pipe_gets_the_user_data_as_ec2_takes_it(table):
    command = ["plan", str(table), "acme", "claims", "--date", "2026-03-01", "--user-data"]

    done = subprocess.run(
        [sys.executable, "-m", "airflow_ephemeral_ec2.cli.main", *command],
        capture_output=True,
        check=True,
    )

    assert gzip.decompress(done.stdout).startswith(b"Content-Type: multipart/mixed")


def test_a_reader_that_has_seen_enough_is_no_error(table):
    command = f"{sys.executable} -m airflow_ephemeral_ec2.cli.main plan {table} acme claims --json"

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
