"""The 23 rows of the outcome table, and laws that hold for every observation."""

import json
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_ephemeral_ec2.contract import CONSOLE_MARKER
from airflow_ephemeral_ec2.model.judging import judge
from airflow_ephemeral_ec2.model.outcome import Kill, Observation, Outcome, StartLock
from airflow_ephemeral_ec2.model.report import Expected, read_marker, read_report
from airflow_ephemeral_ec2.model.watch import (
    Due,
    is_overdue,
    may_conclude_without_marker,
)

NONCE = "n" * 32
EXPECTED = Expected("k", 1, NONCE, "i-1")
MINE, REVOKED = StartLock("i-1", None), StartLock(None, "cancelled")
THEIRS = StartLock("i-2", None)
FOREIGN = StartLock(None, None, fault="the start lock cannot be read")
GUEST, USER = "Client.InstanceInitiatedShutdown", "Client.UserInitiatedShutdown"


def report(**fields):
    found = {"jobkey": "k", "attempt": 1, "nonce": NONCE, "instance_id": "i-1", "phase": "job"}
    return read_report(json.dumps(found | {"exit_code": 0} | fields).encode(), EXPECTED)


def marker(nonce=NONCE, checksum=None, **fields):
    facts = {"nonce": nonce, "phase": "job", "exit_code": 0, "signal": None, "error": None}
    text = json.dumps(facts | fields, separators=(",", ":"), sort_keys=True)
    end = checksum or sha256(text.encode()).hexdigest()[:16]
    return f"[   12.3] cloud-init[612]: {CONSOLE_MARKER} {text} {end}\r\nreboot: Power down\r\n"


def said(**fields):
    return read_marker(marker(**fields), NONCE)


ROWS = [
    (1, report(), "Server.SpotInstanceTermination", MINE, None, None, "succeeded", "none"),
    (1, report(), USER, MINE, Kill("cancelled"), None, "succeeded", "none"),
    (3, report(exit_code=65), GUEST, MINE, None, None, "job_failed", "none"),
    (3, report(exit_code=75), GUEST, MINE, None, None, "job_failed", "job"),
    (4, report(exit_code=143, timed_out=True), GUEST, MINE, None, None, "job_timeout", "none"),
    (5, report(exit_code=137, oom=True), GUEST, MINE, None, None, "job_oom", "none"),
    (
        6,
        report(phase="code", exit_code=None, error={"kind": "network", "message": "m"}),
        GUEST, MINE, None, None, "setup_failed", "infra",
    ),
    (
        6,
        report(phase="code", exit_code=None, error={"kind": "access_denied", "message": "m"}),
        GUEST, MINE, None, None, "setup_failed", "none",
    ),
    (7, report(phase="superseded", exit_code=None), GUEST, REVOKED, None, None, "killed", "none"),
    (8, None, "Server.SpotInstanceTermination", MINE, None, None, "spot_interrupted", "infra"),
    (8, None, "Server.SpotInstanceShutdown", MINE, None, None, "spot_interrupted", "infra"),
    (9, None, "Server.InsufficientInstanceCapacity", None, None, None, "infra_failed", "infra"),
    (9, None, "Server.InternalError", MINE, None, None, "infra_failed", "infra"),
    (9, None, "Server.ScheduledStop", MINE, None, None, "infra_failed", "infra"),
    (10, None, "Client.InternalError", None, None, None, "bad_config", "none"),
    (10, None, "Client.InvalidSnapshot.NotFound", None, None, None, "bad_config", "none"),
    (11, None, "Client.VolumeLimitExceeded", None, None, None, "quota", "infra"),
    (12, None, USER, MINE, Kill("timeout"), None, "job_timeout", "none"),
    (12, None, USER, MINE, Kill("cancelled", "Airflow"), None, "killed", "none"),
    (12, None, USER, MINE, Kill("superseded"), None, "superseded", "none"),
    (13, None, USER, MINE, None, None, "killed", "none"),
    (14, None, GUEST, None, None, None, "never_started", "infra"),
    (15, None, GUEST, MINE, None, None, "lost_status", "none"),
    (15, None, GUEST, MINE, None, said(), "succeeded", "none"),
    (15, None, GUEST, MINE, None, said(exit_code=37), "job_failed", "none"),
    (16, None, GUEST, REVOKED, None, None, "killed", "none"),
    (17, None, USER, REVOKED, Kill("boot_timeout"), None, "boot_timeout", "infra"),
    (13, None, "Client.UserInitiatedHibernate", MINE, None, None, "killed", "none"),
    (13, None, "Client.InstanceTerminated", MINE, None, None, "killed", "none"),
    (15, None, "Client.NewReason", MINE, None, None, "lost_status", "none"),
    (15, None, "", MINE, None, None, "lost_status", "none"),
    (18, None, USER, MINE, Kill("impaired"), None, "lost_status", "none"),
    (
        18, None, USER, StartLock(None, "impaired"), Kill("impaired"), None,
        "infra_failed", "infra",
    ),
    (
        19, None, USER, StartLock(None, "stopped"), Kill("stopped", GUEST), None,
        "never_started", "infra",
    ),
    (19, None, USER, MINE, Kill("stopped", USER), None, "killed", "none"),
    (19, None, USER, MINE, Kill("stopped", "Server.ScheduledStop"), None, "infra_failed", "infra"),
    (19, None, USER, MINE, Kill("stopped", GUEST), None, "lost_status", "none"),
    (19, report(), USER, MINE, Kill("stopped", GUEST), None, "succeeded", "none"),
    (21, report(nonce="other"), GUEST, MINE, None, None, "tampered", "none"),
    (21, report(instance_id="i-2"), GUEST, MINE, None, said(), "tampered", "none"),
    (21, report(), GUEST, FOREIGN, None, None, "tampered", "none"),
    (21, report(exit_code=75), GUEST, FOREIGN, None, None, "tampered", "none"),
    (21, report(phase="superseded", exit_code=None), GUEST, FOREIGN, None, None, "tampered", "none"),
    (21, report(), "Server.SpotInstanceTermination", FOREIGN, None, None, "tampered", "none"),
    (21, None, GUEST, FOREIGN, None, said(), "tampered", "none"),
    (21, None, "Server.InternalError", FOREIGN, None, None, "tampered", "none"),
    (21, None, USER, FOREIGN, Kill("superseded"), None, "tampered", "none"),
    (21, report(), GUEST, THEIRS, None, None, "tampered", "none"),
    (21, None, GUEST, THEIRS, None, said(), "tampered", "none"),
    (1, report(), GUEST, None, None, None, "succeeded", "none"),
    (1, report(), GUEST, REVOKED, None, None, "succeeded", "none"),
    (22, report(), GUEST, MINE, None, said(exit_code=65), "channel_conflict", "none"),
    (22, report(exit_code=65), GUEST, MINE, None, said(), "channel_conflict", "none"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "found", "reason", "lock", "kill", "marker", "outcome", "budget"),
    ROWS,
    ids=[f"row{row[0]}-{number}" for number, row in enumerate(ROWS)],
)
def test_a_dead_machine_is_judged(
    make_spec, row, found, reason, lock, kill, marker, outcome, budget
):
    verdict = judge(
        make_spec(), Observation("i-1", "terminated", reason), found, lock, kill, marker
    )

    assert (verdict.outcome, verdict.budget) == (outcome, budget)
    assert verdict.reason


@pytest.mark.parametrize("state", ["pending", "running", "shutting-down", "stopping", "stopped"])
@pytest.mark.parametrize("found", [None, report(), report(exit_code=1), "no report of ours"])
def test_O10_row2_and_row23_no_ending_while_the_machine_may_live(make_spec, state, found):
    """A report is there and the machine is not dead, or nobody can say."""
    assert judge(make_spec(), Observation("i-1", state), found, MINE, None) is None


@pytest.mark.parametrize(
    ("row", "state", "age", "impaired", "due"),
    [
        (17, "running", 601, 0, Due("boot_timeout", needs_free_lock=True)),
        (17, "running", 599, 0, None),
        (18, "running", 100, 601, Due("impaired")),
        (18, "running", 100, 599, None),
        (19, "stopped", 1, 0, Due("stopped", by="Server.ScheduledStop")),
        (19, "stopping", 1, 0, Due("stopped", by="Server.ScheduledStop")),
        (20, "terminated", 99_999, 0, None),
    ],
)
def test_a_living_machine_is_ended_in_time(make_spec, row, state, age, impaired, due):
    look = Observation("i-1", state, "Server.ScheduledStop")

    assert is_overdue(make_spec(), look, 0.0, age, impaired) == due


def test_B18_a_machine_that_stays_pending_is_ended_after_ten_minutes(make_spec):
    """EC2 never gets past pending, with a boot_timeout longer than that."""
    due = is_overdue(make_spec(boot_timeout="20m"), Observation("i-1", "pending"), 0.0, 601.0)

    assert due == Due("stuck_pending", needs_free_lock=True)


TEXT = st.text(max_size=20)
CODES = st.sampled_from([GUEST, USER, "Server.SpotInstanceTermination", "Client.InternalError", ""])
LOCKS = st.sampled_from([None, MINE, REVOKED, StartLock("i-2", None)])
KILLS = st.sampled_from(
    [None, *(Kill(r) for r in ("timeout", "boot_timeout", "cancelled", "stopped", "impaired"))]
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.floats(), TEXT)
BODIES = st.one_of(
    st.none(),
    st.binary(max_size=50),
    st.fixed_dictionaries(
        {"jobkey": st.just("k"), "attempt": st.just(1), "nonce": st.sampled_from([NONCE, "x"])},
        optional={
            "instance_id": st.sampled_from(["i-1", "i-2"]),
            "phase": st.sampled_from(["job", "lock", "superseded", "", "nonsense"]),
            **dict.fromkeys(("exit_code", "signal", "oom", "timed_out", "interrupted"), VALUES),
        },
    ).map(lambda found: json.dumps(found).encode()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES, st.one_of(CODES, TEXT), LOCKS, KILLS)
def test_success_is_never_concluded_without_a_valid_report(make_spec, body, reason, lock, kill):
    verdict = judge(
        make_spec(),
        Observation("i-1", "terminated", reason),
        read_report(body, EXPECTED),
        lock,
        kill,
    )

    if verdict.outcome is Outcome.SUCCEEDED:
        found = json.loads(body)
        assert (found["nonce"], found["instance_id"]) == (NONCE, "i-1")
        assert (found["phase"], type(found["exit_code"]), found["exit_code"]) == ("job", int, 0)
        assert not found.get("timed_out")
        assert not found.get("interrupted")


@pytest.mark.parametrize(
    "text",
    [
        "",
        marker(nonce="x" * 32),
        marker(checksum="0" * 16),
        marker().replace("{", "{{"),
        marker(exit_code=False),
        marker(phase="nonsense"),
        f"{CONSOLE_MARKER} no Python 3.9 or newer on this image",
    ],
)
def test_a_console_without_our_whole_line_says_nothing(text):
    assert read_marker(text, NONCE) is None


def test_R22_one_whole_line_among_torn_ones_is_enough():
    """The kernel tears two of the three marker lines."""
    torn = marker()[:60] + "\n" + marker(exit_code=37) + marker()[20:70]

    assert read_marker(torn, NONCE).exit_code == 37


@pytest.mark.parametrize(
    ("now", "posted_at", "may_conclude"),
    [
        (1_000.0, 1_001.0, True),
        (1_000.0, 975.0, True),
        (1_000.0, 900.0, False),
        (1_000.0, None, False),
        (1_299.0, None, False),
        (1_301.0, None, True),
        (1_301.0, 900.0, True),
    ],
)
def test_E9_a_late_console_is_waited_for_at_most_five_minutes(now, posted_at, may_conclude):
    """EC2 posts the console output late, or never."""
    assert may_conclude_without_marker(1_000.0, now, posted_at) is may_conclude
