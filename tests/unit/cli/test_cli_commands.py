import base64
import random

import pytest

from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.hooks.preview import AGENT_ROOM
from airflow_ephemeral_ec2.model.user_data import render_user_data


def test_a_right_table_is_summed_up(call, table):
    found = call("validate", table)

    assert found.exit_code == 0
    assert "payers   1: acme" in found.out
    assert "jobs     2" in found.out
    assert "limits   96 vCPU" in found.out


def test_a_wrong_table_gives_every_error_at_once_and_2(call, table):
    table.write_text(
        table.read_text().replace("depends_on: [member]", "depends_on: [membr], max_runtime: 30")
    )

    found = call("validate", table)

    assert found.exit_code == 2
    assert 'did you mean "member"?' in found.out
    assert "max_runtime" in found.out
    assert "2 errors in 2 jobs; no AWS call made" in found.out
    assert found.err == ""


def test_a_program_gets_the_errors_as_json(call, table):
    table.write_text(table.read_text().replace("[member]", "[membr]"))

    found = call("validate", table, "--json")

    assert found.exit_code == 2
    assert not found.json["valid"]
    assert [(p["line"], p["column"]) for p in found.json["problems"]] == [
        (11, "jobs.claims.depends_on")
    ]
    assert found.err == ""


def test_user_data_over_the_limit_is_found_before_any_aws_call(call, table):
    noise = base64.b64encode(random.Random(1).randbytes(9_000)).decode()
    table.write_text(table.read_text().replace("acme: {}", f"acme: {{env: {{TEXT: '{noise}'}}}}"))

    found = call("validate", table)

    assert found.exit_code == 2
    assert "user data would be" in found.out
    assert "acme.env" in found.out


def test_agent_and_boothook_leave_the_room_that_validate_counts_on():
    bare = render_user_data({"max_lifetime": 100_000}, agent=agent_source())

    assert len(bare) <= AGENT_ROOM


def test_a_plan_says_what_comes_before_what_is_launched_and_how_long(call, table):
    found = call("plan", table, "acme", "claims", "--date", "2026-03-01")

    assert found.exit_code == 0
    lines = found.out.splitlines()
    assert lines[0].split() == ["after", "acme/member", "2026-03-01", "success", "priority", "500"]
    assert lines[1] == "launch   1 m7i.large subnet-0a1"
    assert lines[2].startswith("uses     2 of 96 vCPU")
    assert lines[3] == "ends     at most 1h + 10m boot, then terminated"
    assert lines[4].startswith("bytes    user data ")


def test_a_plan_for_programs_has_the_request_and_names_its_placeholders(call, table):
    found = call("plan", table, "acme", "claims", "--date", "2026-03-01", "--json").json

    assert found["request"]["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert len(base64.b64decode(found["request"]["UserData"])) == found["user_data_bytes"]
    assert "nonce" in found["placeholders"]
    assert not found["recorded"]


def test_the_same_preview_gives_the_same_bytes(call, table):
    first = call("plan", table, "acme", "claims", "--date", "2026-03-01", "--json").out

    assert call("plan", table, "acme", "claims", "--date", "2026-03-01", "--json").out == first


def test_a_plan_says_whether_the_code_was_pushed(call, table):
    (table.parent / "jobs" / "member.py").write_text("print(1)\n")

    found = call("plan", table, "acme", "member", "--date", "2026-03-01")

    assert "changed since it was pushed" in found.out


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["acmee", "claims"], "no such payer: 'acmee'; did you mean 'acme'?"),
        (["acme", "clams"], "no such job: 'clams'; did you mean 'claims'?"),
        (["acme", "claims", "--date", "1.3.2026"], "write it like 2026-03-01"),
        (["acme", "claims", "--placement", "9"], "the row has 1 to 1"),
        (["acme", "claims", "--run-id", "r"], "give --environment, --bucket and --region"),
    ],
)
def test_a_wrong_word_is_answered_with_advice_and_2(call, table, words, advice):
    found = call("plan", table, *words)

    assert found.exit_code == 2
    assert advice in found.err
    assert "Traceback" not in found.err


def test_a_program_gets_an_error_as_json_too(call, table):
    found = call("plan", table, "acme", "clams", "--json")

    assert found.json["error"]["kind"] == "UnknownJobError"


def test_a_run_must_say_where(call, table):
    found = call("run", table, "acme", "member", "--date", "2026-03-01")

    assert found.exit_code == 2
    assert "--local" in found.err


def test_a_local_run_says_which_secrets_it_needs(call, table, monkeypatch):
    monkeypatch.delenv("PASSWORD", raising=False)
    table.write_text(table.read_text().replace("acme: {}", "acme: {secrets: {PASSWORD: 'ssm:/p'}}"))

    found = call("run", table, "acme", "claims", "--date", "2026-03-01", "--local")

    assert found.exit_code == 2
    assert "Set: PASSWORD" in found.err


def test_init_makes_a_table_without_errors(call, tmp_path):
    made = call("init", tmp_path / "acme")

    assert made.exit_code == 0
    assert call("validate", tmp_path / "acme" / "payers.yaml").exit_code == 0
    assert len((tmp_path / "acme" / "dag.py").read_text().splitlines()) == 3


def test_init_overwrites_nothing(call, tmp_path):
    (tmp_path / "payers.yaml").write_text("mine")

    found = call("init", tmp_path)

    assert found.exit_code == 2
    assert "payers.yaml" in found.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["payers.yaml"]


def test_an_endpoint_that_is_no_url_is_answered_with_advice_and_2(call, table, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    place = ["--environment", "e", "--bucket", "b", "--region", "us-east-1"]

    found = call("push", table, *place, "--endpoint-url", "nonsense")

    assert found.exit_code == 2
    assert "write it like http://" in found.err
