import json

import endings
import job_run
import polars as pl
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError


def refused(code):
    return ClientError({"Error": {"Code": code, "Message": "row of PATIENT"}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (endings.BrokenInput("x"), 65),
        (endings.MissingInput("x"), 66),
        (endings.NothingToDo("x"), 99),
        (endings.BadEnvironment("x"), 78),
        (refused("SlowDown"), 75),
        (refused("503"), 75),
        (refused("AccessDenied"), 77),
        (refused("NoSuchBucket"), 66),
        (refused("MalformedXML"), 70),
        (EndpointConnectionError(endpoint_url="http://x"), 75),
        (NoCredentialsError(), 78),
        (ConnectionResetError(), 75),
        (pl.exceptions.ComputeError("PATIENT"), 70),
        (ValueError("PATIENT"), 70),
    ],
)
def test_every_cause_has_its_exit_code(error, code):
    assert endings.exit_code_of(error) == code


@pytest.mark.parametrize("error", [refused("SlowDown"), ValueError("PATIENT")])
def test_the_words_of_a_library_are_not_repeated(error):
    assert "PATIENT" not in endings.describe(error)


def test_a_fault_is_told_with_its_place_in_the_jobs_own_code(environment, capsys):
    assert job_run.run("member", lambda bucket: bucket.write("roster", None)) == 70
    assert "at data_bucket.py:" in capsys.readouterr().err


@pytest.fixture
def environment(monkeypatch, tmp_path):
    values = {
        "EPHEMERAL_PAYER": "acme",
        "EPHEMERAL_BUSINESS_DATE": "2026-03-01",
        "EPHEMERAL_ATTEMPT": "2",
        "EPHEMERAL_RESULT_PATH": str(tmp_path / "result.json"),
        "DATA_BUCKET": "b",
        "RUN_COUNTER": str(tmp_path / "runs"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_counts_are_printed_and_left_as_the_result(environment, capsys):
    code = job_run.run("member", lambda _: {"lines": 3})
    assert code == 0
    assert json.loads((environment / "result.json").read_text()) == {"lines": 3}
    assert capsys.readouterr().out == "member: lines 3\n"


def test_a_run_is_counted_at_its_start_and_at_its_end_with_the_code(environment):
    def work(_):
        raise endings.BrokenInput

    job_run.run("claims", work)

    folder = environment / "runs" / "acme" / "_runs" / "2026-03-01" / "claims"
    end, start = (json.loads(file.read_text()) for file in sorted(folder.iterdir()))
    assert (start["phase"], end["phase"], end["exit_code"]) == ("start", "end", 65)
    assert start["run"] == end["run"]
    assert start["attempt"] == "2"


def test_a_missing_variable_is_named_and_ends_with_78(monkeypatch, capsys):
    for name in ("EPHEMERAL_PAYER", "EPHEMERAL_BUSINESS_DATE", "DATA_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    assert job_run.run("member", dict) == 78
    assert "DATA_BUCKET" in capsys.readouterr().err
