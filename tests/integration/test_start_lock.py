"""The start lock is the fence: whatever EC2 launches, the work of an attempt runs at most once."""

import json

import pytest

from airflow_ephemeral_ec2 import contract
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.watch import QUIET_SECONDS
from tests.integration.counted_jobs import counting_engine


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"state_bucket": "records"}, pending=0.1, shutting_down=0.1) as cloud:
        yield cloud


@pytest.fixture
def engine(cloud, make_spec):
    with counting_engine(cloud, make_spec) as engine:
        yield engine


def launch_twin(engine, opened):
    """Launch the same request under another token: a second machine of the same attempt."""
    request = engine.request(opened, ClientToken=f"twin-{opened.jobkey[:20]}")
    return engine.fleet.run(request).instance_id


def phase_of(engine, instance_id):
    arn = contract.instance_arn("us-east-1", engine.cloud.account, instance_id)
    return json.loads(engine.store.read_report(arn) or b"{}").get("phase")


def lock_writes(engine, opened):
    return [
        call["status"]
        for call in engine.cloud.calls("PutObject")
        if opened.jobkey in call["params"].get("Key", "") and "start-lock" in call["params"]["Key"]
    ]


@pytest.mark.parametrize("twin_is_first", [True, False], ids=["twin first", "twin second"])
def test_B7_L11_of_two_machines_of_one_attempt_one_runs_the_work(engine, twin_is_first):
    """EC2 launches the same record twice: RunInstances with another client token."""
    opened, controller = engine.counted("sleep 2"), engine.controller()
    twin = launch_twin(engine, opened) if twin_is_first else None
    controller.tick()
    twin = twin or launch_twin(engine, opened)

    found = engine.wait(opened, controller)

    both = engine.machines(opened)
    engine.cloud.wait_for(lambda: set(engine.machines(opened).values()) == {"terminated"})
    assert len(both) == 2
    assert engine.runs == 1
    assert found.outcome == "succeeded"
    phases = {one: phase_of(engine, one) for one in both}
    assert sorted(phases.values()) == ["job", "superseded"]
    assert phases[found.machine.instance_id] == "job"
    assert sorted(lock_writes(engine, opened)) == [200, 412]


def test_L11_no_capacity_for_one_caller_and_a_machine_for_the_other(engine):
    """One caller hears InsufficientInstanceCapacity; another's replay was served before."""
    engine.cloud.add_fault(action="RunInstances", code="InsufficientInstanceCapacity", count=1)
    opened, controller = engine.counted("sleep 2"), engine.controller()
    controller.tick()
    other = engine.fleet.run(engine.request(opened, 0)).instance_id

    found = engine.wait(opened, controller)

    engine.cloud.wait_for_state(other, "terminated")
    assert engine.runs == 1
    assert found.outcome == "succeeded"
    assert len(engine.machines(opened)) == 2


def test_B9_a_late_boot_of_a_revoked_attempt_does_not_run_and_powers_off(engine):
    """The start lock is revoked before the machine is up."""
    opened = engine.counted()
    assert engine.store.revoke_start_lock(opened.record, "cancelled") is True

    late = engine.fleet.run(engine.request(opened)).instance_id

    engine.cloud.wait_for_state(late, "terminated")
    assert engine.runs == 0
    assert phase_of(engine, late) == "superseded"
    assert "Client.InstanceInitiatedShutdown" in [
        m.reason_code for m in engine.fleet.find_attempt(opened.jobkey, 1)
    ]
    engine.store.close_entry(opened.name)


def test_B7_a_lost_answer_to_ones_own_lock_counts_as_won(engine):
    """S3 takes the lock and the answer is lost; the second write is answered with 412."""
    opened = engine.counted()
    engine.cloud.add_fault(
        action="s3:PutObject",
        match={"Key": f"{opened.jobkey}/a1/start-lock"},
        drop=True,
        after=True,
    )

    found = engine.wait(opened)

    assert (found.outcome, engine.runs) == ("succeeded", 1)
    assert len(engine.machines(opened)) == 1
    assert lock_writes(engine, opened)[-1] == 412


def test_B8_a_conflict_on_the_lock_is_asked_again(engine):
    """S3 answers 409 to the first two writes of the lock."""
    opened = engine.counted()
    engine.cloud.add_fault(
        action="s3:PutObject",
        match={"Key": f"{opened.jobkey}/a1/start-lock"},
        code="ConditionalRequestConflict",
        http=409,
        count=2,
    )

    found = engine.wait(opened)

    assert (found.outcome, engine.runs) == ("succeeded", 1)
    assert lock_writes(engine, opened) == [409, 409, 200]


def test_B6_a_machine_that_may_not_take_the_lock_does_not_run(engine):
    """S3 denies every write of the lock."""
    opened = engine.counted()
    engine.cloud.add_fault(
        action="s3:PutObject",
        match={"Key": f"{opened.jobkey}/a1/start-lock"},
        code="AccessDenied",
        http=403,
        count=1,
    )

    found = engine.wait(opened)

    assert engine.runs == 0
    assert found.outcome == "setup_failed"
    assert lock_writes(engine, opened)[0] == 403


@pytest.mark.parametrize(
    "body", [b"rubbish", b"", b'{"instance_id": "i-0", "nonce": "another"}', b"{}"]
)
def test_a_lock_that_is_not_ours_lets_nobody_run(engine, body):
    """Somebody writes to the lock's key before the machine is up."""
    opened = engine.counted()
    key = contract.start_lock_key("demo", opened.jobkey, 1, opened.record.nonce)
    engine.store.write_new(key, body)

    found = wait_past_all_others(engine, opened, engine.launch(opened))

    assert engine.runs == 0
    assert (found.outcome, found.budget) == ("tampered", "none")


@pytest.mark.parametrize("body", [b'{"instance_id": "i-', b'{"v": 2, "instance_id": "i-0"}'])
def test_a_success_whose_lock_somebody_wrote_over_is_none(engine, body):
    """The machine takes the lock, and somebody writes over it while the job runs."""
    opened = engine.counted("sleep 1")
    controller = engine.launch(opened)
    engine.wait_for_lock(opened)
    key = contract.start_lock_key("demo", opened.jobkey, 1, opened.record.nonce)
    engine.store.s3.put_object(Bucket="records", Key=key, Body=body)

    found = wait_past_all_others(engine, opened, controller)

    assert engine.runs == 1
    assert phase_of(engine, found.machine.instance_id) == "job"
    assert (found.outcome, found.budget) == ("tampered", "none")
    assert found.reason.startswith("the start lock ")


def wait_past_all_others(engine, opened, controller):
    """Wait for the machine's end, and as long as EC2 may be late to show another."""
    engine.cloud.wait_for_state(controller.machine_of(opened.name), "terminated")
    controller.tick()
    assert engine.store.read_outcome(opened.jobkey, 1) is None
    engine.store.clock.ahead += QUIET_SECONDS
    return engine.wait(opened, controller)
