"""The command line in this process: what it returns and what it writes."""

import json
import logging
from dataclasses import dataclass

import pytest

from airflow_ephemeral_ec2.cli.main import main


@dataclass(frozen=True)
class Call:
    exit_code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    for name in ("ENVIRONMENT", "BUCKET", "REGION"):
        monkeypatch.delenv(f"AIRFLOW__EPHEMERAL_EC2__{name}", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "no-airflow"))
    # The commands run without Airflow; here it may be there, and Airflow 2 logs to stdout.
    monkeypatch.setattr(logging.root, "handlers", [])

    def run(*arguments) -> Call:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = ending.code
        written = capsys.readouterr()
        return Call(code, written.out, written.err)

    return run
