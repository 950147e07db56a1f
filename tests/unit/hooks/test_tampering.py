"""Foreign and corrupt objects in the bucket: never a success, never a crash loop, nobody held up."""

import json

import pytest

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt, was_given_up
from airflow_ephemeral_ec2.hooks.bucket import MAX_DOCUMENT_BYTES
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.hooks.watching import GONE_AFTER_SECONDS
from airflow_ephemeral_ec2.model.identity import PastAttempt
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome
from airflow_ephemeral_ec2.model.refusal import Refusal
from airflow_ephemeral_ec2.model.watch import LOOK_SECONDS, QUIET_SECONDS
from tests.unit.hooks.scripted import (
    forget_launches,
    heir_of,
    lock_for,
    name_of,
    outcome_of,
    refusal,
    report,
)

BODIES = {
    "empty": b"",
    "truncated": b'{"version": 1, "jobkey": "aaaa',
    "not json": b"\xff\x00<xml/>",
    "another type": b'["version", 1]',
    "another schema version": b'{"version": 99}',
    "deep": b"[" * 100_000,
    "null": b"null",
    "1 MB": b'{"version": 1, "x": "' + b"x" * 1_000_000 + b'"}',
}
CORRUPT = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())


def put(store, key, body):
    store.s3.put_object(Bucket=store.bucket, Key=key, Body=body)


def keys_of(record):
    where = ("test", record.jobkey, record.attempt)
    return {
        "launch": contract.launch_key(*where),
        "lock": contract.start_lock_key(*where, record.nonce),
        "refused": contract.refused_key(*where, 0),
        "outcome": contract.outcome_key(*where),
        "entry": f"test/queue/{name_of(record)}.json",
        "kill": f"test/queue/{name_of(record)}.kill.json",
    }


@CORRUPT
def test_a_corrupt_launch_record_ends_its_attempt_as_tampered_and_no_other(
    store, fleet, submit, clock, body
):
    record, other = submit("a" * 40), submit("b" * 40)
    put(store, keys_of(record)["launch"], body)
    controller = Controller(store, lambda *_: fleet)

    ended = controller.follow([name_of(record), name_of(other)])

    assert ended[name_of(record)].outcome is Outcome.TAMPERED
    assert "launch.json" in ended[name_of(record)].reason
    assert [request["ClientToken"] for request in fleet.requests] == [
        other.placements[0].client_token
    ]
    assert name_of(record) not in store.list_queue().entries


def test_another_run_waits_until_the_machine_of_an_attempt_that_cannot_be_read_is_gone(
    store, fleet, submit, clock
):
    """EC2 gave no clear answer to its launch; then its record is overwritten."""
    first, second = submit("a" * 40, run_key="one"), submit("b" * 40, run_key="two")
    fleet.refusals = [refusal("InternalError", 500)]
    controller = Controller(store, lambda *_: fleet)
    controller.tick()
    controller.release()
    put(store, keys_of(first)["launch"], b"null")
    fleet.set("i-0", "running")

    heir = heir_of(store, fleet)
    for _ in range(3):
        heir.tick()
        clock.at += LOOK_SECONDS
    assert "i-0" in fleet.terminated
    assert len(fleet.requests) == 1
    assert "which does the same now" in heir.story_of(name_of(second))[-1]
    fleet.set("i-0", "terminated")
    for _ in range(3):
        heir.tick()
        clock.at += LOOK_SECONDS

    assert [request["ClientToken"] for request in fleet.requests[1:]] == [
        second.placements[0].client_token
    ]


def test_the_launch_record_of_another_attempt_is_not_launched(store, fleet, submit, clock):
    record, other = submit("a" * 40), submit("b" * 40)
    put(store, keys_of(record)["launch"], other.model_dump_json().encode())
    controller = Controller(store, lambda *_: fleet)

    assert outcome_of(controller, record).outcome is Outcome.TAMPERED
    assert len(fleet.requests) == 1


@CORRUPT
def test_a_corrupt_queue_entry_is_made_again_from_the_launch_record(
    store, fleet, submit, clock, body
):
    record = submit()
    put(store, keys_of(record)["entry"], body)
    controller = Controller(store, lambda *_: fleet)

    controller.tick()

    assert controller.machine_of(name_of(record)) == "i-0"
    assert [line for line in controller.story_of(name_of(record)) if "tampered with" in line]


def test_a_corrupt_launch_record_is_no_ending_while_the_machine_lives(
    controller, fleet, store, submit, clock
):
    record = submit("a" * 40)
    controller.tick()
    put(store, keys_of(record)["launch"], b"rubbish")
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda *_: fleet)

    assert outcome_of(heir, record) is None
    assert fleet.terminated == ["i-0"]
    assert store.read_start_lock(record).revoked
    fleet.set("i-0", "terminated")
    clock.at += LOOK_SECONDS

    assert outcome_of(heir, record).outcome is Outcome.TAMPERED
    assert store.last_attempt(record.jobkey) == PastAttempt(1, "", "tampered")


def test_a_corrupt_launch_record_whose_lock_is_taken_waits_for_a_machine_to_show(
    controller, fleet, store, submit, clock
):
    """DescribeInstances may not show yet what holds the start lock."""
    record = submit()
    put(store, keys_of(record)["launch"], b"rubbish")
    lock_for(store, record, "i-9")

    assert outcome_of(controller, record) is None
    fleet.set("i-9", "running")
    clock.at += LOOK_SECONDS
    assert outcome_of(controller, record) is None
    assert fleet.terminated == ["i-9"]
    fleet.set("i-9", "terminated")
    clock.at += QUIET_SECONDS
    assert outcome_of(controller, record) is None
    clock.at += QUIET_SECONDS
    assert outcome_of(controller, record).outcome is Outcome.TAMPERED


@CORRUPT
def test_an_attempt_of_which_nothing_can_be_read_is_ended_after_its_machine(
    controller, fleet, store, submit, clock, body
):
    record = submit("a" * 40, limit=3)
    controller.tick()
    other = submit("b" * 40, limit=3)
    put(store, keys_of(record)["entry"], body)
    put(store, keys_of(record)["launch"], body)
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda *_: fleet)

    heir.tick()
    heir.tick()
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated")
    clock.at += LOOK_SECONDS
    assert outcome_of(heir, record) is None
    clock.at += QUIET_SECONDS
    found = outcome_of(heir, record)
    heir.tick()

    assert (found.outcome, found.budget) == ("tampered", "none")
    assert heir.machine_of(name_of(other)) == "i-1"
    assert name_of(record) not in store.list_queue().entries


def lose_all_words(store, record, *, is_state_lost):
    """Leave nothing readable of an attempt whose machine runs."""
    put(store, keys_of(record)["entry"], b"rubbish")
    put(store, keys_of(record)["launch"], b"rubbish")
    if is_state_lost:
        put(store, "test/queue-state.json", b"rubbish")


def wait_for_nothing(controller, record, clock):
    for _ in range(4):
        clock.at += QUIET_SECONDS
        assert outcome_of(controller, record) is None


@pytest.mark.parametrize("is_state_lost", [False, True], ids=["state", "no state"])
def test_a_new_controller_finds_the_machine_of_an_attempt_of_which_nothing_can_be_read(
    controller, fleet, store, submit, clock, is_state_lost
):
    """Where to look is in the queue state, or is the connection and region of the environment."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    lose_all_words(store, record, is_state_lost=is_state_lost)
    clock.at += LEASE_SECONDS + 1
    home = ("aws_default", "us-east-1") if is_state_lost else None
    heir = Controller(store, lambda *_: fleet, home=home)

    wait_for_nothing(heir, record, clock)
    assert set(fleet.terminated) == {"i-0"}
    fleet.set("i-0", "terminated")
    clock.at += LOOK_SECONDS
    assert outcome_of(heir, record) is None
    clock.at += QUIET_SECONDS

    assert outcome_of(heir, record).outcome is Outcome.TAMPERED


def test_an_attempt_is_not_over_while_nobody_knows_where_its_machine_is(
    controller, fleet, store, submit, clock
):
    record = submit()
    controller.tick()
    lose_all_words(store, record, is_state_lost=True)
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda *_: fleet)

    wait_for_nothing(heir, record, clock)

    assert "nobody knows where" in heir.story_of(name_of(record))[-1]
    submit("b" * 40)  # whose machine would be in the same place
    clock.at += LOOK_SECONDS
    heir.tick()
    assert fleet.terminated == ["i-0"]


@pytest.mark.parametrize("name", ["zzz", "x-ay", "a" * 40])
def test_a_foreign_object_in_the_queue_is_passed_over(store, fleet, submit, clock, name):
    record = submit()
    put(store, f"test/queue/{name}.json", b"{}")
    controller = Controller(store, lambda *_: fleet)

    controller.tick()

    assert controller.machine_of(name_of(record)) == "i-0"


FOREIGN_LOCKS = {
    "another nonce": {"nonce": "0" * 32},
    "another schema version": {"v": 2},
    "no version": {"v": None},
    "taken and revoked": {"revoked": "cancelled"},
    "neither taken nor revoked": {"instance_id": ""},
    "no text": {"instance_id": 7},
    "the address of another instance": {"arn": "arn:aws:ec2:us-east-1:1:instance/i-9"},
}


def lock_wrongly(store, record, **changes):
    """Write a start lock as the agent of the first machine does, but for the changes."""
    arn = "arn:aws:ec2:us-east-1:1:instance/i-0"
    body = {"instance_id": "i-0", "arn": arn, "nonce": record.nonce} | changes
    put(store, keys_of(record)["lock"], json.dumps(body).encode())


def expect_tampered_lock(controller, fleet, record, clock):
    """The machine is dead; EC2 is given the time to show another one that had the lock."""
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    assert outcome_of(controller, record) is None
    clock.at += QUIET_SECONDS
    found = outcome_of(controller, record)
    assert (found.outcome, found.budget) == ("tampered", "none")
    assert found.reason.startswith("the start lock ")
    assert found.machine.instance_id == "i-0"


@CORRUPT
@pytest.mark.parametrize("with_report", [True, False])
def test_a_corrupt_start_lock_is_never_a_success_whatever_the_report_says(
    controller, fleet, store, submit, clock, body, with_report
):
    record = submit()
    controller.tick()
    put(store, keys_of(record)["lock"], body)
    if with_report:
        report(store, record, "i-0")

    expect_tampered_lock(controller, fleet, record, clock)

    assert was_given_up(store, record.jobkey, record.attempt) is False


@pytest.mark.parametrize("changes", FOREIGN_LOCKS.values(), ids=FOREIGN_LOCKS.keys())
def test_a_start_lock_that_no_agent_writes_is_never_a_success(
    controller, fleet, store, submit, clock, changes
):
    record = submit()
    controller.tick()
    lock_wrongly(store, record, **changes)
    report(store, record, "i-0")

    expect_tampered_lock(controller, fleet, record, clock)


@pytest.mark.parametrize("changes", [{}, {"v": 1}], ids=["as it is", "with a version"])
def test_a_start_lock_of_ours_is_believed(controller, fleet, store, submit, changes):
    record = submit()
    controller.tick()
    lock_wrongly(store, record, **changes)
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.SUCCEEDED


def test_a_report_of_work_beside_a_start_lock_of_another_instance_is_no_success(
    controller, fleet, store, submit
):
    """One of the two is not ours; the other machine is ended before that is said."""
    record = submit()
    controller.tick()
    lock_for(store, record, "i-9")
    fleet.set("i-9", "running")
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record) is None
    assert fleet.terminated == ["i-9"]
    fleet.set("i-9", "terminated")

    expect_tampered(controller, record, "another instance")


def test_a_corrupt_start_lock_ends_the_other_machine_of_the_attempt_first(
    controller, fleet, store, submit, clock
):
    """EC2 launched two; nobody can know which of them had the lock."""
    record = submit()
    controller.tick()
    fleet.set("i-9", "running")
    put(store, keys_of(record)["lock"], b"rubbish")
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    clock.at += QUIET_SECONDS

    assert outcome_of(controller, record) is None
    assert fleet.terminated == ["i-9"]
    assert store.list_queue().entries == {name_of(record)}
    fleet.set("i-9", "terminated")

    assert outcome_of(controller, record).outcome is Outcome.TAMPERED


@pytest.mark.parametrize("is_faster", [False, True], ids=["revoked", "the other is faster"])
def test_a_corrupt_report_without_a_lock_leaves_no_lock_for_another_machine(
    controller, fleet, store, submit, monkeypatch, is_faster
):
    """EC2 launched two; the rubbish is in the place of the first one's report."""
    record = submit()
    controller.tick()
    put(store, contract.report_key("test", fleet.machines["i-0"].arn), b"rubbish")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    write = store.s3.put_object

    def lose_the_race(**request):
        monkeypatch.undo()
        lock_for(store, record, "i-9")
        return write(**request)

    if is_faster:
        monkeypatch.setattr(store.s3, "put_object", lose_the_race)
    found = outcome_of(controller, record)

    if is_faster:
        assert found is None
        outcome_of(controller, record)
        assert controller.machine_of(name_of(record)) == "i-9"
    else:
        assert found.outcome is Outcome.TAMPERED
        assert store.read_start_lock(record).revoked == "the report cannot be read"


@pytest.mark.parametrize("is_admitted", [True, False])
def test_an_attempt_without_a_machine_ends_as_tampered_when_its_lock_is_not_ours(
    controller, fleet, store, submit, clock, is_admitted
):
    """Who took the lock before somebody wrote over it is looked for before the end."""
    record = submit(limit=96 if is_admitted else 1)
    if is_admitted:
        controller.tick()
        forget_launches(store, controller)
        fleet.owners["i-0"] = ("b" * 40, 1)  # EC2 does not show it yet
    put(store, keys_of(record)["lock"], b"rubbish")
    store.write_kill(name_of(record), Kill("superseded"))
    heir = heir_of(store, fleet)

    assert outcome_of(heir, record) is None
    if is_admitted:
        del fleet.owners["i-0"]
        clock.at += LOOK_SECONDS
        assert outcome_of(heir, record) is None
        assert fleet.terminated == ["i-0"]
        fleet.set("i-0", "terminated")
    for _ in range(2):
        clock.at += QUIET_SECONDS
        outcome_of(heir, record)

    expect_tampered(heir, record, "start-lock-")


def test_other_machines_are_ended_before_one_that_nobody_knows_is_gone(
    controller, fleet, store, submit, clock
):
    """The start lock names an instance that EC2 never shows; ours hangs, and is locked out."""
    record = submit()
    lock_for(store, record, "i-9")
    store.write_kill(name_of(record), Kill("superseded"))
    assert outcome_of(controller, record) is None
    assert controller.machine_of(name_of(record)) == "i-9"
    fleet.set("i-0", "running")

    for _ in range(5):
        clock.at += GONE_AFTER_SECONDS
        assert outcome_of(controller, record) is None
    assert "i-0" in fleet.terminated
    fleet.set("i-0", "terminated")
    clock.at += 61

    assert outcome_of(controller, record).outcome is Outcome.SUPERSEDED


@CORRUPT
def test_R22_a_corrupt_report_is_tampered(controller, fleet, store, submit, body):
    """Somebody else writes the report: rubbish of every kind."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    arn = fleet.machines["i-0"].arn
    put(store, contract.report_key("test", arn), body)
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.TAMPERED


def test_R22_a_report_with_another_nonce_is_tampered(controller, fleet, store, submit):
    """Somebody else writes a success with a nonce of their own."""
    record = submit()
    controller.tick()
    lock_for(store, record)
    report(store, record, "i-0", nonce="0" * 32)
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")

    found = outcome_of(controller, record)

    assert (found.outcome, found.budget) == ("tampered", "none")


FORGED_REFUSALS = {
    "another nonce": {"nonce": "0" * 32},
    "another attempt": {"attempt": 2},
    "another job": {"jobkey": "b" * 40},
    "another placement": {"placement": "p5.48xlarge spot subnet-0a1"},
    "another version": {"version": 2},
    "a field that we do not know": {"by": "somebody"},
    "a code that is no text": {"code": None},
}


def refuse(store, record, **changes):
    """Write a refusal of the first placement, as we do but for the changes."""
    made = Refusal.of(record, 0, "InsufficientInstanceCapacity", "no", 1_000.0)
    put(store, keys_of(record)["refused"], json.dumps(made.model_dump() | changes).encode())


def expect_tampered(controller, record, words):
    """The attempt ends as tampered, is not tried again, and says what is not ours."""
    found = outcome_of(controller, record)
    assert (found.outcome, found.budget) == ("tampered", "none")
    assert words in found.reason


@CORRUPT
def test_a_corrupt_refusal_is_reported_and_passes_no_placement_over(
    controller, fleet, store, submit, body
):
    record, other = submit("a" * 40), submit("b" * 40)
    put(store, keys_of(record)["refused"], body)

    expect_tampered(controller, record, "refused-0.json")

    assert [request["ClientToken"] for request in fleet.requests] == [
        other.placements[0].client_token
    ]
    assert store.read_start_lock(record).revoked
    assert name_of(record) not in store.list_queue().entries


@pytest.mark.parametrize("changes", FORGED_REFUSALS.values(), ids=FORGED_REFUSALS.keys())
def test_a_refusal_that_names_something_else_is_reported(controller, fleet, store, submit, changes):
    record = submit()
    refuse(store, record, **changes)

    expect_tampered(controller, record, "refused-0.json")

    assert fleet.requests == []


def test_a_refusal_of_ours_passes_its_placement_over(controller, fleet, store, submit):
    record = submit()
    refuse(store, record)

    controller.tick()

    assert [request["ClientToken"] for request in fleet.requests] == [
        record.placements[1].client_token
    ]


@pytest.mark.parametrize("name", ["refused-9", "refused-x", "refused-\u00b2", "refused-00"])
def test_a_foreign_key_among_the_refusals_is_passed_over(controller, fleet, store, submit, name):
    record = submit()
    put(store, f"test/jobs/{record.jobkey}/a1/{name}.json", b"{}")

    controller.tick()

    assert controller.machine_of(name_of(record)) == "i-0"


@pytest.mark.parametrize("has_lock", [True, False], ids=["it works", "it boots"])
def test_a_corrupt_refusal_ends_the_machine_that_a_lost_answer_has_left(
    controller, fleet, store, submit, clock, has_lock
):
    """The first placement has a machine, and rubbish says that it was refused."""
    record = submit()
    controller.tick()
    forget_launches(store, controller)
    put(store, keys_of(record)["refused"], b"rubbish")
    if has_lock:
        lock_for(store, record)
    heir = heir_of(store, fleet)

    assert outcome_of(heir, record) is None
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated")
    for _ in range(2):
        clock.at += QUIET_SECONDS
        outcome_of(heir, record)

    expect_tampered(heir, record, "refused-0.json")
    assert len(fleet.requests) == 1


@CORRUPT
def test_a_corrupt_kill_request_still_ends_the_attempt(controller, fleet, store, submit, body):
    record = submit()
    put(store, keys_of(record)["kill"], body)

    expect_tampered(controller, record, "the kill request")
    assert fleet.requests == []


@CORRUPT
def test_a_corrupt_kill_request_ends_a_machine_and_is_named(
    controller, fleet, store, submit, clock, body
):
    record = submit()
    controller.tick()
    put(store, keys_of(record)["kill"], body)
    controller.tick()
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")

    assert outcome_of(controller, record).outcome is Outcome.TAMPERED


@CORRUPT
def test_a_corrupt_outcome_is_reported_and_launches_nothing(store, fleet, submit, clock, body):
    record, other = submit("a" * 40), submit("b" * 40)
    put(store, keys_of(record)["outcome"], body)
    controller = Controller(store, lambda *_: fleet)

    controller.follow([name_of(record)])

    assert isinstance(controller.tampering_with(name_of(record)), TamperedObjectError)
    assert [request["ClientToken"] for request in fleet.requests] == [
        other.placements[0].client_token
    ]
    with pytest.raises(TamperedObjectError, match=r"outcome\.json"):
        store.last_attempt(record.jobkey)


def test_an_outcome_that_turns_out_to_be_foreign_ends_only_its_own_waiter(
    controller, fleet, store, submit
):
    record, other = submit("a" * 40, limit=4), submit("b" * 40, limit=4)
    controller.tick()
    put(store, keys_of(record)["outcome"], b"rubbish")
    for one, machine in ((record, "i-0"), (other, "i-1")):
        report(store, one, machine)
        fleet.set(machine, "terminated", reason="Client.InstanceInitiatedShutdown")

    names = [name_of(record), name_of(other)]
    ended = controller.follow(names)

    assert {name: found.outcome for name, found in ended.items()} == {names[1]: "succeeded"}
    assert isinstance(controller.tampering_with(names[0]), TamperedObjectError)
    assert store.list_queue().entries == frozenset()
    assert store.read_state()[0].entries == {}


def test_a_foreign_outcome_of_its_predecessor_does_not_hold_an_attempt_up_for_ever(
    controller, fleet, store, submit
):
    record = submit()
    controller.tick()
    put(store, keys_of(record)["outcome"], b"rubbish")
    following = submit(attempt=2, supersedes=1)
    controller.tick()
    assert controller.machine_of(name_of(following)) is None
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    controller.tick()
    controller.tick()

    assert controller.machine_of(name_of(following)) == "i-1"


def test_an_object_far_too_large_is_not_read_at_all(store):
    put(store, "test/queue-state.json", b"[" * (MAX_DOCUMENT_BYTES + 1))

    state, etag = store.read_state()

    assert state.is_rebuilt
    assert etag
    assert store.read_document("test/queue-state.json") == b""


@pytest.mark.parametrize("key", ["ax/launch.json", "a7/more/launch.json", "a-1/launch.json"])
def test_a_foreign_key_among_the_attempts_is_passed_over(store, submit, clock, key):
    record = submit()
    put(store, f"test/jobs/{record.jobkey}/{key}", b"{}")

    assert store.last_attempt(record.jobkey) == PastAttempt(1, "e1", None)


@pytest.mark.parametrize("name", ["", "x/y", "abc.1", "abc.xof3", "abc.1of"])
def test_a_foreign_key_by_date_is_passed_over(store, submit, clock, name):
    record = submit()
    store.write_date_index(record)
    put(store, f"test/by-date/acme/claims/2026-03-01/{name}", b"{}")

    assert [found.jobkey for found in store.find_by_date("acme", "claims", "2026-03-01")] == [
        record.jobkey
    ]


@CORRUPT
def test_a_corrupt_environment_secret_is_named(store, body):
    store.s3.put_object(Bucket=store.bucket, Key="test/environment.json", Body=body)

    with pytest.raises(TamperedObjectError, match=r"environment\.json"):
        store.read_secret()


@CORRUPT
def test_a_lost_queue_state_is_rebuilt_from_the_queue_and_from_ec2(
    controller, fleet, store, submit, clock, body
):
    running = submit("a" * 40, limit=3)
    controller.tick()
    waiting = submit("b" * 40, limit=3)
    clock.at += 61
    put(store, "test/queue-state.json", body)
    heir = Controller(store, lambda *_: fleet)
    fleet.shown = {"i-0": name_of(running)}

    heir.tick()

    assert heir.machine_of(name_of(running)) == "i-0"
    assert heir.machine_of(name_of(waiting)) is None
    assert len(fleet.requests) == 1
    assert store.read_state()[0].entries[name_of(running)].stage == "launched"


def test_nobody_is_admitted_while_a_lost_state_cannot_be_rebuilt(
    controller, fleet, store, submit, clock
):
    submit("a" * 40)
    put(store, "test/queue-state.json", b"{")
    fleet.is_blind = True

    for _ in range(3):
        controller.tick()
    assert fleet.requests == []
    assert "blind" in controller.story_of("a" * 40 + "-a1")[-1]
    fleet.is_blind = False
    controller.tick()

    assert len(fleet.requests) == 1


@CORRUPT
def test_a_kill_ends_the_machine_of_an_attempt_whose_record_is_not_ours(
    controller, fleet, store, submit, body
):
    record = submit()
    controller.tick()
    put(store, keys_of(record)["launch"], body)

    assert kill_attempt(store, fleet, record.jobkey, 1, Kill("cancelled")) is True

    assert fleet.terminated == ["i-0"]
    assert store.list_queue().kills == {name_of(record)}


@CORRUPT
def test_a_worker_that_meets_a_foreign_record_launches_nothing(store, submit, clock, body):
    record = submit()
    put(store, keys_of(record)["launch"], body)

    with pytest.raises(TamperedObjectError, match=r"s3://.*/launch\.json") as raised:
        store.last_attempt(record.jobkey)

    assert raised.value.retryable is False
    assert "Find out who wrote there" in str(raised.value)


@CORRUPT
def test_a_success_beside_a_corrupt_kill_request_is_not_believed(
    controller, fleet, store, submit, body
):
    record = submit()
    controller.tick()
    report(store, record, "i-0")
    fleet.set("i-0", "terminated", reason="Client.InstanceInitiatedShutdown")
    put(store, keys_of(record)["kill"], body)

    found = outcome_of(controller, record)

    assert found.outcome is Outcome.TAMPERED
    assert "the kill request" in found.reason
