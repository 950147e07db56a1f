"""What people read when a job has ended."""

from pathlib import Path

import pytest

from airflow_ephemeral_ec2.model.outcome import Budget, Observation, Outcome, Verdict
from airflow_ephemeral_ec2.model.record import (
    Machine,
    Times,
    conclude,
    describe_failure,
    describe_story,
    name_anchor,
    xcom_of,
)
from airflow_ephemeral_ec2.model.watch import Due, is_overdue

MACHINE = Machine(
    instance_id="i-0def",
    arn="arn:aws:ec2:us-east-1:1:instance/i-0def",
    instance_type="m6i.large",
    availability_zone="us-east-1b",
    capacity_type="on-demand",
    state_reason="Client.InstanceInitiatedShutdown",
    vcpus=64,
    memory_mib=128 * 1024,
)
REPORT = {
    "exit_code": 65,
    "wall_seconds": 11.2,
    "peak_memory_bytes": 41 * 1024**3,
    "cpu_seconds": 649.6,
    "lock_at": "2026-03-02T02:00:38.000Z",
    "code_at": "2026-03-02T02:00:38.100Z",
    "log": {"dropped_bytes": 1_234_567},
    "result": {"rows": 3},
}


TIMES = Times(requested=0.0, launched=1_772_416_800.0)


def outcome(record, **fields):
    verdict = Verdict(Outcome.JOB_FAILED, "exit 65 (data error)", Budget.NONE)
    return conclude(record, verdict, TIMES, MACHINE, REPORT | fields, root="s3://b/m/")


def test_a_failure_is_one_message_that_says_what_to_do(make_record):
    text = describe_failure(outcome(make_record()), "Not retried: 65 is not in retry_exit_codes.")

    assert text == (
        "acme/claims 2026-03-01, attempt 1: job failed, exit 65 (data error) after 11s on i-0def "
        "(m6i.large, terminated). Not retried: 65 is not in retry_exit_codes. "
        "Log: s3://b/m/log/. What to do: docs/outcomes.md#exit-65"
    )


def test_an_ending_without_exit_code_says_so(make_record):
    verdict = Verdict(Outcome.BOOT_TIMEOUT, "not started", Budget.INFRA)
    record = conclude(make_record(), verdict, Times(requested=0.0), MACHINE, root="s3://b/m/")

    text = describe_failure(record, "Retry 1 of 2 (infra_retries).")

    assert "boot timeout, no exit status, not started" in text
    assert text.endswith("docs/outcomes.md#boot-timeout")


def test_the_story_tells_time_memory_log_and_death(make_record):
    story = describe_story(outcome(make_record()))

    assert story == [
        "running: start lock taken, code verified; 38s after launch",
        "log: s3://b/m/log/ (log_to_airflow=none)",
        "ended: exit 65 after 11s; peak 41.0 of 128 GiB, 58.0 of 64 vCPU busy",
        "log capped: 1,234,567 bytes dropped",
        "gone: i-0def terminated (Client.InstanceInitiatedShutdown)",
    ]


def test_every_ending_leads_to_a_paragraph_that_exists():
    docs = (Path(__file__).parents[3] / "docs" / "outcomes.md").read_text()
    endings = [(o, None) for o in Outcome if o not in (Outcome.SUCCEEDED, Outcome.SKIPPED)]
    endings += [(Outcome.JOB_FAILED, code) for code in range(1, 256)]

    anchors = {name_anchor(outcome, code) for outcome, code in endings}

    assert {a for a in anchors if f"### {a}\n" not in docs} == set()
    assert "exit-65" in anchors


@pytest.mark.parametrize(("opted_in", "kept"), [(False, False), (True, True)])
def test_a_result_reaches_xcom_only_when_the_row_says_so(make_record, opted_in, kept):
    value = xcom_of(outcome(make_record(push_result=opted_in)))

    assert ("result" in value) is kept


def test_a_result_that_cannot_be_written_down_again_is_left_out(make_record):
    deep = []
    for _ in range(300):
        deep = [deep]

    for bad in ("\ud800", deep):
        found = outcome(make_record(push_result=True), result=bad)
        assert (found.result, found.exit_code) == (None, 65)
        assert "cannot" in found.result_error or "not JSON" in found.result_error
        assert found.model_dump_json()


@pytest.mark.parametrize(
    ("state", "age", "due"),
    [
        ("running", 60, None),
        ("running", 601, Due("boot_timeout", needs_free_lock=True)),
        ("running", 600 + 3_600 + 20 + 121, Due("timeout")),
        ("pending", 601, Due("boot_timeout", needs_free_lock=True)),
        ("stopped", 1, Due("stopped")),
        ("stopping", 1, Due("stopped")),
        ("shutting-down", 99_999, None),
        ("terminated", 99_999, None),
    ],
)
def test_a_machine_is_overdue_by_age_and_state(make_spec, state, age, due):
    assert is_overdue(make_spec(), Observation("i-1", state), 1_000.0, 1_000.0 + age) == due
