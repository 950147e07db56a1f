"""What the machine says, what its console says, and what EC2 says, where they differ."""

import json

import pytest

from airflow_ephemeral_ec2.contract import report_key
from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.integration.counted_jobs import SkippingClock
from tests.integration.engine import Engine

SAY_AND_SLEEP = ["sh", "-c", "echo begun; sleep 60"]
SUCCESS = {"phase": "job", "exit_code": 0}


@pytest.fixture(scope="module")
def cloud():
    seed = {"state_bucket": "records"}
    with local_ec2(seed=seed, pending=0.1, shutting_down=0.1, stop_grace=1.0) as cloud:
        yield cloud


@pytest.fixture
def engine(cloud, make_spec):
    engine = Engine(cloud, make_spec)
    engine.store.clock = SkippingClock()
    engine.forget_refusals()  # and whose lease it was, in a time that this clock has not reached
    yield engine
    cloud.clear_faults()
    cloud.clear_harms()
    assert {i: s for i, s in cloud.instances().items() if s != "terminated"} == {}


@pytest.fixture
def running(engine):
    """Return the attempt, controller and machine of a job that runs."""

    def running(command=SAY_AND_SLEEP, **changes):
        opened = engine.open(command=command, **changes)
        controller = engine.launch(opened)
        return opened, controller, engine.wait_for_job(opened)

    return running


def forge(engine, opened, machine, **changes):
    """Write a report as somebody who may write anywhere in the bucket."""
    record = opened.record
    body = {
        "jobkey": record.jobkey, "attempt": record.attempt, "nonce": record.nonce,
        "instance_id": machine, **SUCCESS,
    } | changes  # fmt: skip
    arn = f"arn:aws:ec2:us-east-1:{engine.cloud.account}:instance/{machine}"
    assert engine.store.write_new(report_key("demo", arn), json.dumps(body).encode())


def console_calls(engine, machine):
    calls = engine.cloud.calls("GetConsoleOutput")
    return [call for call in calls if machine in json.dumps(call["params"])]


def test_R22_a_forged_success_of_a_machine_that_was_ended_is_a_conflict(engine, running):
    """Somebody writes a success with our nonce and terminates the machine."""
    opened, controller, machine = running()
    forge(engine, opened, machine)

    engine.fleet.terminate([machine])
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("channel_conflict", "none")
    assert found.console_uri is not None
    assert len(console_calls(engine, machine)) == 1


def test_R22_a_report_with_another_nonce_is_never_a_success(engine, running):
    """Somebody writes a success without knowing the nonce."""
    opened, controller, machine = running(["sh", "-c", "echo begun; sleep 1"])
    forge(engine, opened, machine, nonce="0" * 32)

    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("tampered", "none")


def test_R18_a_report_that_s3_refuses_is_replaced_by_the_console(engine, running):
    """S3 answers 403 to the report of the machine, and to nothing else."""
    engine.cloud.add_fault(
        action="s3:PutObject", match={"Key": "report.json$"}, code="AccessDenied", http=403, count=0
    )
    opened, controller, machine = running(["sh", "-c", "echo begun; exit 37"])

    found = engine.wait(opened, controller)

    assert (found.outcome, found.exit_code, found.is_from_console) == ("job_failed", 37, True)
    assert found.machine.instance_id == machine
    assert engine.store.read_report(found.machine.arn) is None


@pytest.mark.parametrize("harm", ["no-console", "late-console"])
def test_E3_E9_power_lost_before_the_report_waits_for_the_console_and_is_lost(
    engine, running, harm
):
    """The power goes while the job runs; the console output is late or never comes."""
    engine.cloud.add_harm(harm, seconds=600)
    opened, controller, machine = running()
    engine.cloud.kill(machine, "power-off")
    engine.cloud.wait_for_state(machine, "terminated")

    controller.tick()
    controller.tick()
    assert controller.follow([opened.name]) == {}
    engine.store.clock.ahead += 301
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget, found.console_uri) == ("lost_status", "none", None)


def test_a_console_that_may_not_be_read_delays_no_ending(engine, running):
    engine.cloud.add_fault(
        action="GetConsoleOutput", code="UnauthorizedOperation", http=403, count=0
    )
    opened, controller, machine = running()
    engine.cloud.kill(machine, "power-off")

    found = engine.wait(opened, controller)

    assert (found.outcome, found.console_uri) == ("lost_status", None)
    assert len(console_calls(engine, machine)) == 1


def test_a_machine_that_powers_off_before_the_lock_provably_never_started(engine):
    engine.cloud.add_harm("no-user-data")
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = controller.machine_of(opened.name)
    engine.cloud.wait_for_state(machine, "running")
    engine.cloud.kill(machine, "power-off")

    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("never_started", "infra")
    assert engine.store.read_start_lock(opened.record).instance_id is None


def test_R15_a_spot_notice_and_then_the_end_is_an_interruption(engine, running):
    """EC2 gives notice; the job stops for it, and the machine powers itself off before EC2 does."""
    trap = "trap 'exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    opened, controller, machine = running(["sh", "-c", trap], capacity_type="spot")

    engine.cloud.kill(machine, "spot-notice")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("spot_interrupted", "infra")
    assert found.reason == "EC2 gave notice that it takes the spot machine back"
    # What EC2 says afterwards would be the end of any other machine, too.
    assert found.machine.state_reason == "Client.InstanceInitiatedShutdown"
    assert found.exit_code == 0


def sweep(engine, controller, opened, times):
    """Let a minute pass before each of so many full looks; return the ending, if there is one."""
    for _ in range(times):
        engine.store.clock.ahead += 61
        found = controller.follow([opened.name])
        if found:
            return found[opened.name]
    return None


@pytest.mark.parametrize(
    ("code", "has_report", "outcome"),
    [(0, True, "succeeded"), (37, True, "job_failed"), (0, False, "lost_status")],
    ids=["success", "failure", "no report"],
)
def test_O6_when_ec2_has_forgotten_the_machine_the_bucket_decides(
    engine, running, code, has_report, outcome
):
    """Airflow is away while the machine ends, and until EC2's record of it has vanished."""
    opened, controller, machine = running(["sh", "-c", f"echo begun; sleep 0.5; exit {code}"])
    if not has_report:
        engine.cloud.kill(machine, "power-off")
    engine.cloud.wait_for_state(machine, "terminated")
    engine.cloud.kill(machine, "vanish")
    assert engine.fleet.find_attempt(opened.jobkey, 1) == []
    engine.store.clock.ahead += 3_601

    found = sweep(engine, controller, opened, 6)

    assert (found.outcome, found.machine.instance_id) == (outcome, machine)
    assert len(engine.launches(opened)) == 1


def test_O10_a_report_does_not_end_an_attempt_whose_machine_lives(engine, running):
    """The report is there, and the machine runs on: it hangs on its way off."""
    opened, controller, machine = running(max_runtime="1h")
    forge(engine, opened, machine, exit_code=37)
    engine.cloud.kill(machine, "hang")

    assert sweep(engine, controller, opened, 4) is None
    assert engine.cloud.instances()[machine] == "running"
    engine.cloud.kill(machine, "host")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.exit_code) == ("job_failed", 37)
    assert engine.cloud.states(machine)[-1] == "terminated"


def test_B18_a_machine_that_stays_pending_is_ended_and_may_be_tried_again(engine):
    """EC2 leaves the machine pending for more than ten minutes."""
    engine.cloud.add_harm("stuck-pending")
    opened = engine.open(command=["true"], boot_timeout="30m")
    controller = engine.launch(opened)
    machine = controller.machine_of(opened.name)
    engine.store.clock.ahead += 590
    controller.tick()
    assert engine.cloud.instances()[machine] == "pending"
    engine.store.clock.ahead += 61  # only a full look asks for pending machines
    controller.tick()
    engine.cloud.wait_for_state(machine, "terminated")

    found = sweep(engine, controller, opened, 8)

    assert (found.outcome, found.budget) == ("infra_failed", "infra")
    assert "pending" in found.reason
    assert engine.cloud.states(machine) == ["pending", "shutting-down", "terminated"]
    assert engine.store.read_start_lock(opened.record).revoked == "stuck_pending"
