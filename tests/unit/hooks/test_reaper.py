"""What one pass of the reaper makes of EC2's word, the bucket's word and its own memory."""

import json

import pytest

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.exceptions import AccessError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.reaper import TAGS_SETTLE_SECONDS, Reaper, describe_pass
from airflow_ephemeral_ec2.hooks.reaper_store import ReaperStore
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import EntryState, QueueState, Stage
from airflow_ephemeral_ec2.model.reap import PATIENCE_SECONDS, SeenMachine, Suspicion

KEY = "a" * 40


def machine(instance_id="i-1", jobkey=KEY, **changes):
    fields = {
        "state": "running",
        "payer": "acme",
        "job": "claims",
        "attempt": "1",
        "age": 100.0,
        "max_lifetime": 1_000.0,
    }
    return SeenMachine(instance_id=instance_id, jobkey=jobkey, **(fields | changes))


class Shown:
    """What EC2 shows to the reaper, changed by the test alone."""

    region = "us-east-1"

    def __init__(self):
        self.now = 10_000.0
        self.machines, self.leftovers, self.untagged = [], [], set()
        self.ended, self.forced = [], []
        self.failures = {}

    def list_machines(self):
        return list(self.machines)

    def list_leftovers(self):
        if isinstance(self.leftovers, Exception):
            raise self.leftovers
        return list(self.leftovers)

    def find_untagged(self, instance_ids):
        return [one for one in instance_ids if one in self.untagged]

    def end(self, resource_ids, *, force=False):
        (self.forced if force else self.ended).extend(resource_ids)
        return {one: why for one, why in self.failures.items() if one in resource_ids}

    def later(self, seconds=300.0):
        self.now += seconds
        for index, one in enumerate(self.machines):
            age = None if one.age is None else one.age + seconds
            self.machines[index] = machine(**(vars(one) | {"age": age}))


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def ask(store, make_record):
    """Write what a task writes before its machine exists."""

    def ask(jobkey=KEY, *, is_open=True, **changes):
        record = store.write_launch(make_record(jobkey=jobkey, **changes))
        if is_open:
            store.write_entry(plan_entry(record))
        return record

    return ask


def ids(findings):
    return [one.resource_id for one in findings]


def test_K5_an_orphan_is_ended_by_the_second_process_that_sees_it(shown, store, ask):
    """Its attempt is over, nobody heard the kill, and every controller is gone."""
    ask(is_open=False)
    shown.machines = [machine()]

    first = Reaper(shown, store).make_pass()
    ended_at_first = list(shown.ended)
    shown.later()
    second = Reaper(shown, store).make_pass()

    assert (ids(first.plan.suspects), ended_at_first) == (["i-1"], [])
    assert (ids(second.plan.orphans), shown.ended) == (["i-1"], ["i-1"])


def test_two_passes_too_close_together_end_nobody(shown, store, ask):
    ask(is_open=False)
    shown.machines = [machine()]
    Reaper(shown, store).make_pass()
    shown.later(PATIENCE_SECONDS[Suspicion.NOT_OPEN] - 1)

    assert ids(Reaper(shown, store).make_pass().plan.suspects) == ["i-1"]
    assert shown.ended == []


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"version": 1, "of": 7}', b"\xff"])
def test_rubbish_in_its_memory_costs_a_pass_and_ends_nobody(shown, store, ask, body):
    ask(is_open=False)
    shown.machines = [machine()]
    store.write_new("test/reaper/us-east-1.json", body)

    Reaper(shown, store).make_pass()
    ended_at_first = list(shown.ended)
    shown.later()
    Reaper(shown, store).make_pass()

    assert (ended_at_first, shown.ended) == ([], ["i-1"])


def test_a_machine_of_an_open_attempt_is_left_alone(shown, store, ask):
    ask()
    shown.machines = [machine()]
    reaper = Reaper(shown, store)

    for _ in range(3):
        assert reaper.make_pass().plan.sightings == {}
        shown.later()


def test_K6_a_machine_whose_end_was_asked_for_is_ended_when_nobody_else_does(shown, store, ask):
    """The kill request is written, and whoever wrote it died before TerminateInstances."""
    ask()
    store.write_kill(f"{KEY}-a1", Kill("cancelled", by="a person"))
    shown.machines = [machine()]
    reaper = Reaper(shown, store)

    reaper.make_pass()
    shown.later()
    reaper.make_pass()

    assert shown.ended == ["i-1"]


def test_K8_of_two_machines_of_an_attempt_the_one_without_the_lock_is_ended(shown, store, ask):
    """One attempt has two machines; the start lock names one of them."""
    record = ask()
    key = contract.start_lock_key("test", KEY, 1, record.nonce)
    store.write_new(key, json.dumps({"instance_id": "i-2", "nonce": record.nonce}).encode())
    shown.machines = [machine("i-1"), machine("i-2")]
    reaper = Reaper(shown, store)

    reaper.make_pass()
    shown.later()
    reaper.make_pass()

    assert shown.ended == ["i-1"]


@pytest.mark.parametrize("lock", [None, b"rubbish"])
def test_two_machines_without_a_readable_lock_are_left_to_it(shown, store, ask, lock):
    record = ask()
    if lock is not None:
        store.write_new(contract.start_lock_key("test", KEY, 1, record.nonce), lock)
    shown.machines = [machine("i-1"), machine("i-2")]

    assert Reaper(shown, store).make_pass().plan.sightings == {}


@pytest.mark.parametrize(
    "tags", [{}, {"jobkey": ""}, {"jobkey": "../environment"}, {"attempt": "1/x"}, {"attempt": ""}]
)
def test_K11_a_machine_that_the_bucket_never_asked_for_is_told_and_not_ended(shown, store, tags):
    """Somebody made a machine by hand and copied our tags, or other ones."""
    shown.machines = [machine(**tags)]
    reaper = Reaper(shown, store)

    reaper.make_pass()
    shown.later()
    result = reaper.make_pass()

    assert shown.ended == []
    assert "no launch record" in result.alarms[0]
    assert describe_pass(result)[-1].startswith("alarm: i-1")


def test_K10_a_machine_that_lost_its_tags_is_told(shown, store, ask):
    """Somebody removed the tags of the machine of an open attempt."""
    ask()
    states = {
        f"{KEY}-a1": EntryState(
            sequence=1, stage=Stage.LAUNCHED, instance_id="i-1", launched_at=shown.now
        )
    }
    store.write_state(QueueState(entries=states), None)
    shown.untagged = {"i-1"}

    young = Reaper(shown, store).make_pass()
    shown.now += TAGS_SETTLE_SECONDS + 1
    old = Reaper(shown, store).make_pass()

    assert young.alarms == ()
    assert "i-1" in old.alarms[0]
    assert "has lost its tags" in old.alarms[0]


@pytest.fixture
def denied(store, monkeypatch):
    """The bucket refuses to be listed, read and written."""

    def refuse(*_, **__):
        raise AccessError("read s3://records", "AWS says AccessDenied", "")

    for name in ("list_keys", "read_tagged", "write_new", "exists"):
        monkeypatch.setattr(store, name, refuse)
    monkeypatch.setattr(ReaperStore, "write_sightings", refuse)
    return store


def test_without_the_bucket_age_still_counts_after_a_second_look(shown, denied):
    waits = []

    def sleep(seconds):
        waits.append((seconds, list(shown.ended)))
        shown.later(seconds)

    shown.machines = [machine(age=90_000.0), machine("i-2")]

    first, second = Reaper(shown, denied, sleep=sleep).reap()

    assert waits == [(PATIENCE_SECONDS[Suspicion.TOO_OLD] + 1, [])]
    assert shown.ended == ["i-1"]
    assert (first.is_bucket_readable, second.is_bucket_readable) == (False, False)
    assert "EC2's word only" in describe_pass(second)[0]


def test_what_is_too_old_is_ended_also_where_the_bucket_can_be_read_and_not_written(
    shown, store, monkeypatch
):
    """Each run is a process of its own and would see everything for the first time, for ever."""

    def refuse(*_, **__):
        raise AccessError("write s3://records", "AWS says AccessDenied", "")

    monkeypatch.setattr(ReaperStore, "write_sightings", refuse)
    shown.machines = [machine(age=90_000.0)]

    first, second = Reaper(shown, store, sleep=shown.later).reap()

    assert shown.ended == ["i-1"]
    assert first.is_bucket_readable
    assert "cannot be kept in the bucket" in first.alarms[-1]
    assert second.problems == {}


def test_without_the_bucket_and_without_suspects_nobody_waits(shown, denied):
    shown.machines = [machine()]

    assert len(Reaper(shown, denied, sleep=lambda _: pytest.fail("waited")).reap()) == 1


def test_with_the_bucket_one_pass_is_enough_and_remembered(shown, store, ask):
    ask()
    shown.machines = [machine(age=90_000.0)]

    assert len(Reaper(shown, store, sleep=lambda _: pytest.fail("waited")).reap()) == 1
    assert "i-1" in ReaperStore(store, "test").read_sightings("us-east-1").of


def test_a_dry_run_ends_nothing_writes_nothing_and_says_what_it_would_do(shown, store, ask):
    ask(is_open=False)
    shown.machines = [machine()]
    reaper = Reaper(shown, store)

    reaper.make_pass(is_dry_run=True)
    shown.later()
    second = reaper.make_pass(is_dry_run=True)

    assert shown.ended == []
    assert ReaperStore(store, "test").read_sightings("us-east-1") is None
    assert describe_pass(second)[1].endswith("its attempt is over; would be ended")


def test_an_orphan_is_told_once_however_long_it_lives(shown, store, ask):
    ask(is_open=False)
    shown.machines = [machine()]
    shown.failures = {"i-1": "UnauthorizedOperation"}
    told = []
    for _ in range(4):
        result = Reaper(shown, store).make_pass()
        told.append(ids(result.new_orphans))
        shown.later()

    assert told == [[], ["i-1"], [], []]
    assert result.problems == {"i-1": "UnauthorizedOperation"}
    assert "could not be ended: UnauthorizedOperation" in describe_pass(result)[1]


def test_stuck_machines_are_ended_by_force_and_only_they(shown, store, ask):
    ask()
    shown.machines = [machine(state="shutting-down"), machine("i-2", state="stopped")]
    reaper = Reaper(shown, store)

    reaper.make_pass()
    shown.later(1_000.0)
    reaper.make_pass()

    assert (shown.ended, shown.forced) == (["i-2"], ["i-1"])


def test_left_over_volumes_that_cannot_be_listed_keep_no_machine_alive(shown, store, ask):
    ask(is_open=False)
    shown.machines = [machine()]
    shown.leftovers = AwsUnavailableError("ec2:describe_volumes", "throttled")
    reaper = Reaper(shown, store)

    reaper.make_pass()
    shown.later()
    reaper.make_pass()

    assert shown.ended == ["i-1"]


def test_K15_left_over_volumes_wait_for_an_hour(shown, store):
    """A volume that nothing uses."""
    shown.leftovers = ["vol-1"]
    reaper = Reaper(shown, store)

    for seconds in (1_800.0, 1_799.0, 1.0):
        reaper.make_pass()
        assert shown.ended == []
        shown.later(seconds)
    reaper.make_pass()

    assert shown.ended == ["vol-1"]
