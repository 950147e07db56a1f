"""One right table, and a way to spoil it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.config_table import check_table, format_problems

RIGHT = """\
version: 1
aws: {aws_conn_id: aws_default, region: us-east-1, tags: {CostCenter: "4711"}}
defaults:
  ami: ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64
  code: jobs/
  max_runtime: 1h
  subnets: [subnet-0a1, subnet-0b2]
  security_groups: [sg-0c3]
  instance_profile: payer-machine
limits: {vcpus: 96}
jobs:
  member:      {priority: 900, instance_types: [m7i.large], command: [python3, member.py]}
  eligibility: {instance_types: [m7i.large], command: [python3, eligibility.py], depends_on: [member]}
  claims:      {instance_types: [m7i.2xlarge], command: [python3, claims.py], depends_on: [eligibility]}
payers:
  acme: {schedule: "0 2 * * *", job_role: acme-data, jobs: {claims: {max_runtime: 30m}}}
  pea:  {job_role: pea-data}
"""


@pytest.fixture
def right_text() -> str:
    return RIGHT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where tables lie: with a code folder."""
    (tmp_path / "jobs").mkdir()
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Write a table, by default the right one, with texts replaced."""

    def write(*replacements: tuple[str, str], text: str = RIGHT, name: str = "payers.yaml") -> Path:
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def complain(write: Callable[..., Path]) -> Callable[..., str]:
    """Say what ``validate`` prints about a spoiled table, without the folder's name."""

    def complain(*replacements: tuple[str, str], **options: str) -> str:
        path = write(*replacements, **options)
        found = check_table(path)
        problems = [replace(problem, path=Path(problem.path).name) for problem in found.problems]
        return format_problems(problems, checked=found.jobs)

    return complain
