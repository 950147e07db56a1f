"""The truth table of endings, row by row."""

import json

import pytest

from airflow_ephemeral_ec2.model.judging import judge, judge_unlaunched
from airflow_ephemeral_ec2.model.outcome import (
    Budget,
    Kill,
    Observation,
    Outcome,
    StartLock,
    Verdict,
)
from airflow_ephemeral_ec2.model.report import Expected, Report, read_report

EXPECTED = Expected("k", 1, "n", "i-1")
MINE = StartLock("i-1", None)


def report(**changes) -> Report | str | None:
    found = {
        "jobkey": "k",
        "attempt": 1,
        "nonce": "n",
        "instance_id": "i-1",
        "phase": "job",
        "exit_code": 0,
    } | changes
    return read_report(json.dumps(found).encode(), EXPECTED)


def dead(reason: str = "Client.InstanceInitiatedShutdown") -> Observation:
    return Observation("i-1", "terminated", reason)


@pytest.mark.parametrize("version", [0, 99, "1", None])
def test_a_report_of_another_schema_version_is_never_a_success(make_spec, version):
    assert judge(make_spec(), dead(), report(v=1), MINE, None).outcome is Outcome.SUCCEEDED
    verdict = judge(make_spec(), dead(), report(v=version), MINE, None)

    assert verdict.outcome is Outcome.TAMPERED
    assert "schema version" in verdict.reason


@pytest.mark.parametrize("state", ["pending", "running", "shutting-down", "stopping", "stopped"])
def test_nothing_is_concluded_while_the_machine_may_live(make_spec, state):
    verdict = judge(make_spec(), Observation("i-1", state), report(), MINE, None)

    assert verdict is None


@pytest.mark.parametrize(
    "reason",
    [
        "Client.InstanceInitiatedShutdown",
        "Client.UserInitiatedShutdown",
        "Server.SpotInstanceTermination",
        "Server.InternalError",
        "",
    ],
)
@pytest.mark.parametrize("kill", [None, Kill("cancelled"), Kill("timeout")])
def test_a_reported_success_stays_one_however_the_machine_died(make_spec, reason, kill):
    verdict = judge(make_spec(), dead(reason), report(), MINE, kill)

    assert verdict.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("fields", "outcome", "budget"),
    [
        pytest.param({"exit_code": 1}, "job_failed", "none", id="nonzero"),
        pytest.param({"exit_code": 127}, "job_failed", "none", id="not found"),
        pytest.param({"exit_code": 75}, "job_failed", "job", id="retry code"),
        pytest.param({"exit_code": 99}, "skipped", "none", id="skip code"),
        pytest.param({"exit_code": 143, "timed_out": True}, "job_timeout", "none", id="timeout"),
        pytest.param({"exit_code": 0, "timed_out": True}, "job_timeout", "none", id="late zero"),
        pytest.param({"exit_code": 137, "oom": True}, "job_oom", "none", id="oom"),
        pytest.param({"exit_code": 1, "disk_full": True}, "job_failed", "none", id="disk"),
        pytest.param({"exit_code": None}, "tampered", "none", id="no exit code"),
        pytest.param(
            {"phase": "pre_command", "exit_code": 2}, "setup_failed", "none", id="pre_command"
        ),
        pytest.param(
            {"phase": "pre_command", "exit_code": 75}, "setup_failed", "job", id="pre_command 75"
        ),
        pytest.param(
            {"phase": "code", "exit_code": None, "error": {"kind": "code_hash_mismatch"}},
            "setup_failed",
            "none",
            id="wrong code hash",
        ),
        pytest.param(
            {"phase": "code", "exit_code": None, "error": {"kind": "network"}},
            "setup_failed",
            "infra",
            id="network",
        ),
    ],
)
def test_a_report_decides(make_spec, fields, outcome, budget):
    verdict = judge(make_spec(), dead(), report(**fields), MINE, None)

    assert (verdict.outcome, verdict.budget) == (outcome, budget)


@pytest.mark.parametrize(
    ("reason", "kill", "outcome"),
    [
        pytest.param(
            "Client.UserInitiatedShutdown", Kill("cancelled", "Airflow"), "killed", id="us"
        ),
        pytest.param("Client.UserInitiatedShutdown", None, "killed", id="somebody"),
        pytest.param("Server.SpotInstanceTermination", None, "spot_interrupted", id="spot"),
        pytest.param("Client.InstanceInitiatedShutdown", None, "infra_failed", id="host"),
        pytest.param("Client.UserInitiatedShutdown", Kill("timeout"), "job_timeout", id="deadline"),
    ],
)
def test_an_interrupted_job_is_judged_by_who_interrupted_it(make_spec, reason, kill, outcome):
    interrupted = report(exit_code=143, signal=15, interrupted=True)

    verdict = judge(make_spec(), dead(reason), interrupted, MINE, kill)

    assert verdict.outcome == outcome


@pytest.mark.parametrize("phase", ["job", "pre_command", "code", "lock"])
@pytest.mark.parametrize(
    ("by", "reason", "kill", "outcome", "budget"),
    [
        ("spot", "Client.InstanceInitiatedShutdown", None, "spot_interrupted", "infra"),
        ("spot", "", None, "spot_interrupted", "infra"),
        ("spot", "Client.UserInitiatedShutdown", Kill("cancelled"), "killed", "none"),
        (None, "Client.InstanceInitiatedShutdown", None, "infra_failed", "infra"),
        (None, "Client.UserInitiatedShutdown", Kill("superseded"), "superseded", "none"),
        ("somebody", "Client.InstanceInitiatedShutdown", None, "infra_failed", "infra"),
    ],
)
def test_R15_an_interruption_has_its_cause_in_every_phase(
    make_spec, phase, by, reason, kill, outcome, budget
):
    """The machine powers itself off after a spot notice: EC2's own reason tells nothing."""
    code = 143 if phase in ("job", "pre_command") else None
    words = report(phase=phase, exit_code=code, interrupted=True, interrupted_by=by)

    verdict = judge(make_spec(), dead(reason), words, MINE, kill)

    assert (verdict.outcome, verdict.budget) == (outcome, budget)


def test_a_job_that_was_told_to_stop_and_exits_0_has_not_succeeded(make_spec):
    saved = report(exit_code=0, interrupted=True)

    assert judge(make_spec(), dead("Server.SpotInstanceTermination"), saved, MINE, None) == Verdict(
        Outcome.SPOT_INTERRUPTED, "EC2 took the spot machine back", Budget.INFRA
    )


@pytest.mark.parametrize("body", [b'{"error": "text"}', b"[" * 100_000, b"{}", b"null"])
def test_no_report_is_strange_enough_to_stop_the_loop(body):
    assert read_report(body, EXPECTED) == "the report cannot be read"


@pytest.mark.parametrize(
    ("reason", "lock", "kill", "outcome", "budget"),
    [
        ("Server.SpotInstanceTermination", MINE, None, "spot_interrupted", "infra"),
        ("Server.SpotInstanceTermination", MINE, Kill("cancelled"), "spot_interrupted", "infra"),
        ("Server.InternalError", MINE, None, "infra_failed", "infra"),
        ("Client.InternalError", None, None, "bad_config", "none"),
        ("Client.InvalidSnapshot.NotFound", None, None, "bad_config", "none"),
        ("Client.VolumeLimitExceeded", None, None, "quota", "infra"),
        ("Client.UserInitiatedShutdown", MINE, Kill("timeout"), "job_timeout", "none"),
        ("Client.UserInitiatedShutdown", None, Kill("boot_timeout"), "boot_timeout", "infra"),
        ("Client.UserInitiatedShutdown", MINE, Kill("superseded"), "superseded", "none"),
        ("Client.UserInitiatedShutdown", MINE, Kill("impaired"), "lost_status", "none"),
        ("Client.UserInitiatedShutdown", None, Kill("stuck_pending"), "infra_failed", "infra"),
        ("Client.UserInitiatedShutdown", MINE, None, "killed", "none"),
        ("Client.InstanceInitiatedShutdown", None, None, "never_started", "infra"),
        ("Client.InstanceInitiatedShutdown", MINE, None, "lost_status", "none"),
        ("Client.InstanceInitiatedShutdown", StartLock(None, "gone"), None, "killed", "none"),
        ("", MINE, None, "lost_status", "none"),
        ("Something.New", MINE, None, "lost_status", "none"),
    ],
)
def test_silence_is_never_a_success(make_spec, reason, lock, kill, outcome, budget):
    verdict = judge(make_spec(), dead(reason), None, lock, kill)

    assert (verdict.outcome, verdict.budget) == (outcome, budget)


@pytest.mark.parametrize(
    "forged", [{"nonce": "x"}, {"attempt": 2}, {"jobkey": "x"}, {"instance_id": "i-2"}]
)
def test_a_report_of_somebody_else_is_not_believed(make_spec, forged):
    verdict = judge(make_spec(), dead(), report(**forged), MINE, None)

    assert verdict.outcome is Outcome.TAMPERED


def test_a_report_that_cannot_be_read_is_not_believed():
    assert read_report(b"{", EXPECTED) == "the report cannot be read"
    assert read_report(b"[]", EXPECTED) == "the report cannot be read"


def test_a_superseded_machine_does_not_speak_for_the_attempt(make_spec):
    verdict = judge(
        make_spec(), dead(), report(phase="superseded"), StartLock(None, "killed"), None
    )

    assert verdict.outcome is Outcome.KILLED


def test_a_row_chooses_its_own_exit_codes(make_spec):
    spec = make_spec(success_exit_codes=[0, 3], skip_exit_codes=[4], retry_exit_codes=[5])

    outcomes = [judge(spec, dead(), report(exit_code=code), MINE, None) for code in (3, 4, 5)]

    assert [(v.outcome, v.budget) for v in outcomes] == [
        (Outcome.SUCCEEDED, Budget.NONE),
        (Outcome.SKIPPED, Budget.NONE),
        (Outcome.JOB_FAILED, Budget.JOB),
    ]


def test_a_failure_names_the_exit_code_as_sysexits_does(make_spec):
    assert (
        judge(make_spec(), dead(), report(exit_code=65), MINE, None).reason
        == "exit 65 (data error)"
    )
    assert (
        judge(make_spec(), dead(), report(exit_code=139), MINE, None).reason
        == "exit 139 (signal 11)"
    )


@pytest.mark.parametrize(
    ("reason", "outcome", "budget"),
    [
        ("timeout", Outcome.JOB_TIMEOUT, Budget.NONE),
        ("boot_timeout", Outcome.BOOT_TIMEOUT, Budget.INFRA),
        ("stuck_pending", Outcome.INFRA_FAILED, Budget.INFRA),
        ("impaired", Outcome.INFRA_FAILED, Budget.INFRA),
        ("stopped", Outcome.INFRA_FAILED, Budget.INFRA),
        ("tampered", Outcome.TAMPERED, Budget.NONE),
        ("superseded", Outcome.SUPERSEDED, Budget.NONE),
        ("cancelled", Outcome.KILLED, Budget.NONE),
        ("execution_timeout", Outcome.KILLED, Budget.NONE),
    ],
)
def test_only_who_was_given_up_is_told_as_killed_where_no_machine_is_known(reason, outcome, budget):
    found = judge_unlaunched(Kill(reason, "Server.InternalError"))

    assert (found.outcome, found.budget) == (outcome, budget)
