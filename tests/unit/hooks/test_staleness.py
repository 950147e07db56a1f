"""A job whose input is written again while it runs: its success is stale, whoever records it."""

import logging
from dataclasses import replace

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.hooks.queue_ledger import LEASE_SECONDS
from airflow_ephemeral_ec2.model.order import DatedKey
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.record import describe_story, xcom_of
from tests.unit.hooks.scripted import name_of, report

DATE = "2026-03-01"
MEMBER, CLAIMS, REPORTS = "1" * 40, "2" * 40, "3" * 40
READS = {"member": (), "claims": ("member",), "reports": ("claims",)}
READ_BY = {"member": ("claims", "reports"), "claims": ("reports",), "reports": ()}


@pytest.fixture
def ask(store, make_record):
    """Put an attempt of a job into the queue, as its task would."""

    def ask(job, jobkey, attempt=1, *, override="", **changes):
        made = make_record(
            job=job, jobkey=jobkey, attempt=attempt, depends_on=READS[job], **changes
        )
        extra = {"dependents": READ_BY[job], "order_override": override}
        record = store.write_launch(made.model_copy(update=extra))
        store.write_date_index(record)
        store.write_entry(plan_entry(record))
        return record

    return ask


@pytest.fixture
def launch(controller, ask, clock):
    """Ask for a job and let it be launched; seconds pass."""

    def launch(*words, **changes):
        record = ask(*words, **changes)
        controller.tick()
        clock.at += 30
        return record

    return launch


@pytest.fixture
def succeed(controller, store, fleet):
    """Let the machine of an attempt succeed, and a controller see it."""

    def succeed(record, by=controller):
        instance_id = fleet.tokens[record.placements[0].client_token]
        report(store, record, instance_id)
        fleet.set(instance_id, "terminated", reason="Client.InstanceInitiatedShutdown")
        by.tick()
        return store.read_outcome(record.jobkey, record.attempt)

    return succeed


def stale(store, job):
    return store.read_history(DatedKey("acme", job, DATE)).stale


def test_a_job_that_runs_while_its_input_is_written_again_is_stale_when_it_succeeds(
    store, launch, succeed, caplog
):
    succeed(launch("member", MEMBER))
    claims = launch("claims", CLAIMS)
    succeed(launch("member", MEMBER, 2))
    assert stale(store, "claims") == frozenset()

    with caplog.at_level(logging.WARNING, "airflow_ephemeral_ec2"):
        outcome = succeed(claims)

    assert outcome.stale_inputs == (f"acme/member {DATE}",)
    assert stale(store, "claims") == {name_of(claims)}
    assert describe_story(outcome)[-1] == (
        f"stale: acme/member {DATE} was written again after this launch, or is stale itself; "
        "run this again"
    )
    assert xcom_of(outcome)["stale_inputs"] == [f"acme/member {DATE}"]
    assert f"is stale: acme/member {DATE}" in caplog.text


def test_a_job_launched_in_the_very_pass_in_which_its_input_succeeded_is_not_stale(
    store, controller, ask, launch, succeed
):
    member = launch("member", MEMBER)
    claims = ask("claims", CLAIMS)
    succeed(member)

    outcome = succeed(claims)

    assert (outcome.outcome, outcome.stale_inputs) == ("succeeded", ())
    assert stale(store, "claims") == frozenset()


def test_a_job_that_runs_again_after_it_was_stale_is_fresh(store, launch, succeed):
    succeed(launch("member", MEMBER))
    claims = launch("claims", CLAIMS)
    succeed(launch("member", MEMBER, 2))
    succeed(claims)

    assert succeed(launch("claims", CLAIMS, 2)).stale_inputs == ()
    assert stale(store, "claims") == {name_of(claims)}


def test_what_is_read_at_second_hand_counts_too(store, launch, succeed):
    """The input of the input ran again, and the input itself did not."""
    succeed(launch("member", MEMBER))
    succeed(launch("claims", CLAIMS))
    reports = launch("reports", REPORTS)
    succeed(launch("member", MEMBER, 2))

    assert succeed(reports).stale_inputs == (f"acme/claims {DATE}",)


@pytest.mark.parametrize(
    "changes", [{"override": "the payer called"}, {"cross_run_order": False}], ids=["run", "row"]
)
def test_who_did_not_wait_for_its_input_is_stale_like_everybody(launch, succeed, changes):
    member = launch("member", MEMBER)
    claims = launch("claims", CLAIMS, **changes)
    succeed(member)

    assert succeed(claims).stale_inputs == (f"acme/member {DATE}",)


def test_a_finished_part_of_an_array_that_is_not_done_is_marked(store, launch, succeed):
    succeed(launch("member", MEMBER))
    part = launch("claims", CLAIMS, array_size=2)
    succeed(part)

    outcome = succeed(launch("member", MEMBER, 2))

    assert outcome.makes_stale == (f"acme/claims {DATE}",)
    assert stale(store, "claims") == {name_of(part)}


def test_the_heir_of_a_lost_controller_knows_it_too(store, fleet, launch, succeed, clock):
    succeed(launch("member", MEMBER))
    claims = launch("claims", CLAIMS)
    succeed(launch("member", MEMBER, 2))
    clock.at += LEASE_SECONDS + 1
    heir = Controller(store, lambda *_: fleet, in_parallel=one_by_one)

    assert succeed(claims, heir).stale_inputs == (f"acme/member {DATE}",)


def lose_note_of(store, record):
    """The controller died between RunInstances and the next write of the queue state."""
    state, etag = store.read_state()
    lost = {"stage": Stage.ADMITTED, "placement": None, "instance_id": None, "launched_at": None}
    name = name_of(record)
    entries = state.entries | {name: state.entries[name].model_copy(update=lost)}
    store.write_state(state.model_copy(update={"entries": entries, "lease": None}), etag)


@pytest.mark.parametrize("is_state_lost", [False, True])
def test_a_launch_that_nobody_noted_is_dated_by_ec2(
    store, fleet, launch, succeed, clock, is_state_lost
):
    succeed(launch("member", MEMBER))
    claims = launch("claims", CLAIMS)
    launched_at = clock.at - 30
    succeed(launch("member", MEMBER, 2))
    instance_id = fleet.tokens[claims.placements[0].client_token]
    if is_state_lost:
        store.s3.delete_object(Bucket=store.bucket, Key="test/queue-state.json")
    else:
        lose_note_of(store, claims)
    heir = Controller(store, lambda *_: fleet, in_parallel=one_by_one)
    heir.tick()
    report(store, claims, instance_id)
    fleet.set(instance_id, "terminated", reason="Client.InstanceInitiatedShutdown")
    fleet.machines[instance_id] = replace(fleet.machines[instance_id], launched_at=launched_at)

    heir.tick()

    assert len(fleet.requests) == 4
    assert store.read_outcome(CLAIMS, 1).stale_inputs == (f"acme/member {DATE}",)


def test_a_success_is_dated_by_its_record_and_else_by_s3(store, end):
    key = DatedKey("acme", "member", DATE)
    end("member", "job_failed", jobkey=MEMBER)
    assert store.find_success(key, 0.0) is None
    before = store.clock.now()

    end("member", jobkey=MEMBER, attempt=2)

    # Its record does not say when: S3 does, in whole seconds.
    assert store.find_success(key, 0.0) == pytest.approx(before, abs=5)
    assert store.find_success(key, before + 60) is None
