"""Faults of machine and EC2, injected into a local EC2 that runs the real agent."""

import time

import pytest

from airflow_ephemeral_ec2.exceptions import AwsUnavailableError
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.outcome import Kill
from tests.integration.engine import Engine

SAY_AND_SLEEP = ["sh", "-c", "echo begun; sleep 60"]


@pytest.fixture(scope="module")
def cloud():
    seed = {"state_bucket": "records"}
    with local_ec2(
        seed=seed, pending=0.1, shutting_down=0.1, stop_grace=0.5, reboot_guard=0.5
    ) as cloud:
        yield cloud


@pytest.fixture
def engine(cloud, make_spec):
    engine = Engine(cloud, make_spec)
    yield engine
    engine.forget_refusals()
    cloud.clear_faults()
    cloud.clear_harms()
    alive = {i: s for i, s in cloud.instances().items() if s != "terminated"}
    assert alive == {}


@pytest.mark.parametrize(
    ("code", "outcome", "budget"),
    [
        ("Client.InternalError", "bad_config", "none"),
        ("Client.InvalidSnapshot.NotFound", "bad_config", "none"),
        ("Client.VolumeLimitExceeded", "quota", "infra"),
        ("Server.InternalError", "infra_failed", "infra"),
        ("Server.InsufficientInstanceCapacity", "infra_failed", "infra"),
        ("Server.SpotInstanceTermination", "spot_interrupted", "infra"),
        ("Server.SpotInstanceShutdown", "spot_interrupted", "infra"),
        ("Server.ScheduledStop", "infra_failed", "infra"),
        ("Client.UserInitiatedShutdown", "killed", "none"),
        ("Client.UserInitiatedHibernate", "killed", "none"),
        ("Client.InstanceTerminated", "killed", "none"),
        ("Some.NewReason", "never_started", "infra"),
    ],
)
def test_B19_L28_L29_a_machine_that_fails_to_start_is_named_by_its_reason(
    engine, code, outcome, budget
):
    """The machine goes from pending to terminated, with each StateReason."""
    engine.cloud.add_harm("slow-boot", seconds=30)
    opened = engine.open(command=["true"])
    controller = engine.launch(opened)

    engine.cloud.kill(controller.machine_of(opened.name), "launch", code=code)
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget, found.machine.state_reason) == (outcome, budget, code)
    assert engine.cloud.states(found.machine.instance_id) == [
        "pending",
        "shutting-down",
        "terminated",
    ]
    assert engine.store.read_start_lock(opened.record).instance_id is None


def test_R16_a_spot_machine_that_is_taken_without_notice(engine):
    """EC2 takes the spot machine back while the job runs."""
    opened, controller = (
        engine.open(command=SAY_AND_SLEEP, capacity_type="spot"),
        engine.controller(),
    )
    controller.tick()
    engine.wait_for_job(opened)

    engine.cloud.kill(controller.machine_of(opened.name), "spot")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("spot_interrupted", "infra")
    assert len(engine.machines(opened)) == 1


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("Server.ScheduledStop", "infra_failed"), ("Client.UserInitiatedShutdown", "killed")],
)
def test_R17_R13_a_stopped_machine_is_terminated_and_named_by_who_stopped_it(engine, code, outcome):
    """EC2 retires the host, or an operator presses Stop, while the job runs."""
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)

    engine.cloud.kill(machine, "stop", code=code)
    found = engine.wait(opened, controller)

    assert found.outcome == outcome
    assert engine.cloud.states(machine)[-2:] == ["shutting-down", "terminated"]


def test_R4_a_job_that_kills_the_agent_is_lost_and_never_a_success(engine):
    """The agent dies, and its unit powers the machine off: here by hand, in tests/machine itself."""
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)

    engine.cloud.kill(machine, "agent")
    engine.cloud.kill(machine, "power-off")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.exit_code, found.budget) == ("lost_status", None, "none")


def test_R18_a_machine_whose_report_cannot_be_sent_speaks_through_its_console(engine):
    """The machine loses its way to S3 while the job runs."""
    opened = engine.open(command=["sh", "-c", "echo begun; sleep 1; exit 37"], boot_timeout="8s")
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)

    engine.cloud.kill(machine, "network")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.exit_code, found.is_from_console) == ("job_failed", 37, True)
    arn = found.machine.arn
    assert engine.store.read_report(arn) is None
    assert b"EPHEMERAL-EC2 " in engine.store.read(f"demo/machines/{arn}/console.txt")


def test_B3_a_metadata_service_that_refuses_leaves_its_reason_on_the_console(engine):
    """The metadata service answers 401 to every request for a token."""
    engine.cloud.add_harm("imds-401")
    opened, controller = engine.open(command=["true"], boot_timeout="3s"), engine.controller()

    found = engine.wait(opened, controller)

    assert found.outcome in ("setup_failed", "boot_timeout")
    assert found.times.started is None
    text = engine.store.read(f"demo/machines/{found.machine.arn}/console.txt")
    assert b"EPHEMERAL-EC2 " in text


def test_B1_user_data_that_never_runs_ends_as_boot_timeout(engine):
    """The image has no cloud-init."""
    engine.cloud.add_harm("no-user-data")
    opened, controller = engine.open(command=["true"], boot_timeout="2s"), engine.controller()

    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("boot_timeout", "infra")
    assert engine.store.read_start_lock(opened.record).revoked == "boot_timeout"
    assert engine.cloud.states(found.machine.instance_id)[-1] == "terminated"


def test_B1_the_console_of_a_machine_that_did_not_start_is_kept_before_ec2_posts_it(engine):
    """The image does not come up, and EC2 posts the console an hour after the end."""
    engine.cloud.add_harm("late-console", seconds=3_600)
    events = engine.fleet.clients.launch.meta.events

    def boot_nothing(params, **_):
        return params | {"UserData": "#!/bin/sh\necho 'VFS: no root device'; sleep 600"}

    opened = engine.open(command=["true"], boot_timeout="4s")
    events.register("provide-client-params.ec2.RunInstances", boot_nothing)
    try:
        controller = engine.launch(opened)
    finally:
        events.unregister("provide-client-params.ec2.RunInstances", boot_nothing)

    found = engine.wait(opened, controller)

    assert found.outcome == "boot_timeout"
    ec2, machine = engine.cloud.client("ec2"), found.machine
    assert "Output" not in ec2.get_console_output(InstanceId=machine.instance_id)
    assert found.console_uri.endswith(f"{machine.arn}/console.txt")
    assert b"VFS: no root device" in engine.store.read(f"demo/machines/{machine.arn}/console.txt")


def test_a_console_that_ec2_answers_late_is_not_waited_for(engine):
    """GetConsoleOutput takes ten seconds."""
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)
    engine.cloud.add_fault(action="GetConsoleOutput", delay=10.0)
    began = time.monotonic()

    with pytest.raises(AwsUnavailableError, match="ReadTimeoutError"):
        engine.fleet.read_console(machine, as_of_now=True)

    assert time.monotonic() - began < 5
    engine.fleet.terminate([machine])
    assert engine.wait(opened, controller).outcome == "killed"


def test_a_console_that_ec2_cannot_read_while_the_machine_lives_delays_nothing(engine):
    """The type is not on Nitro, and EC2 has nothing of its console."""
    engine.cloud.add_harm("no-user-data")
    opened = engine.open(command=["true"], boot_timeout="2s", instance_types=["m4.large"])

    found = engine.wait(opened, engine.controller())

    assert (found.outcome, found.console_uri) == ("boot_timeout", None)
    refused = [c for c in engine.cloud.calls("GetConsoleOutput")
               if c["params"]["InstanceId"] == found.machine.instance_id and c["code"]]  # fmt: skip
    assert [call["code"] for call in refused] == ["UnsupportedOperation"]


@pytest.mark.parametrize("times", [1, 3])
def test_R11_R12_R24_a_reboot_ends_the_machine_and_runs_nothing_again(engine, times):
    """The machine reboots while the job runs: an operator, an upgrade, a panic or its host."""
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)

    for _ in range(times):
        engine.cloud.kill(machine, "reboot")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.exit_code) == ("lost_status", None)
    assert len(engine.machines(opened)) == 1
    log = b"".join(engine.store.read_log(found.machine.arn))
    assert log.count(b"begun") == 1


def test_K1_L31_a_machine_that_ec2_does_not_know_yet_is_asked_for_until_it_is_gone(engine):
    """EC2 does not show the machine, and TerminateInstances says NotFound, for a while."""
    engine.cloud.add_harm("hide", seconds=2)
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = controller.machine_of(opened.name)

    kill_attempt(engine.store, engine.fleet, opened.jobkey, 1, Kill("cancelled", by="a person"))
    found = engine.wait(opened, controller)

    assert (found.outcome, found.machine.instance_id) == ("killed", machine)
    refused = [call for call in engine.cloud.calls("TerminateInstances") if call["code"]]
    assert "InvalidInstanceID.NotFound" in {call["code"] for call in refused}
    assert engine.machines(opened) == {machine}


@pytest.mark.parametrize(
    "fault",
    [
        {"code": "UnauthorizedOperation", "http": 403, "count": 2},
        {"code": "InternalError", "http": 500, "count": 6},
        {"code": "InternalError", "http": 500, "count": 1, "after": True},
        {"drop": True, "count": 2},
    ],
    ids=["denied", "500", "lost answer", "hung up"],
)
def test_K3_K2_an_end_that_is_refused_is_asked_for_again(engine, fault):
    """TerminateInstances is denied while tags settle, fails, or loses its answer."""
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)
    engine.store.write_kill(opened.name, Kill("cancelled", by="a person"))
    engine.cloud.add_fault(action="TerminateInstances", **fault)

    found = engine.wait(opened, controller)

    assert found.outcome == "killed"
    assert engine.cloud.states(machine)[-1] == "terminated"


def test_K4_L38_a_protected_machine_is_said_and_ends_with_its_job(engine):
    """Somebody switched termination protection on, then the task is killed."""
    opened, controller = (
        engine.open(command=["sh", "-c", "echo begun; sleep 3"]),
        engine.controller(),
    )
    controller.tick()
    machine = engine.wait_for_job(opened)
    engine.cloud.kill(machine, "protect")
    engine.store.write_kill(opened.name, Kill("cancelled", by="a person"))
    controller.tick()

    assert "protected" in " ".join(controller.story_of(opened.name))
    found = engine.wait(opened, controller)
    assert found.machine.instance_id == machine


def test_K10_a_machine_whose_tags_were_removed_is_still_ended(engine):
    """Somebody removes the tags, then the task is killed."""
    opened = engine.open(command=SAY_AND_SLEEP)
    controller = engine.launch(opened)
    machine = engine.wait_for_job(opened)
    engine.cloud.kill(machine, "untag")

    kill_attempt(engine.store, engine.fleet, opened.jobkey, 1, Kill("cancelled", by="a person"))
    found = engine.wait(opened, controller)

    assert (found.outcome, found.machine.instance_id) == ("killed", machine)


def test_O4_one_unknown_id_does_not_hide_the_others(engine):
    """One of the ids that are looked at was never an instance."""
    opened = engine.open(command=["sleep", "1"])
    controller = engine.launch(opened)
    machine = controller.machine_of(opened.name)

    seen = engine.fleet.observe([machine, "i-0123456789abcdef0"], all_states=True).machines

    assert [one.instance_id for one in seen] == [machine]
    assert engine.wait(opened, controller).outcome == "succeeded"


@pytest.mark.parametrize(
    "fault",
    [
        {"code": "RequestLimitExceeded", "http": 503, "count": 8},
        {"code": "InternalError", "http": 500, "count": 8},
        {"drop": True, "count": 6},
    ],
    ids=["throttled", "500", "hung up"],
)
def test_O3_O5_L36_describe_that_fails_fails_no_task(engine, fault):
    """DescribeInstances is throttled, fails, or does not answer while the job runs."""
    opened, controller = (
        engine.open(command=["sh", "-c", "echo begun; sleep 1"]),
        engine.controller(),
    )
    controller.tick()
    engine.wait_for_job(opened)
    engine.cloud.add_fault(action="DescribeInstances", **fault)

    found = engine.wait(opened, controller)

    assert found.outcome == "succeeded"
    assert len(engine.machines(opened)) == 1


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_O9_s3_that_fails_for_a_while_fails_no_task(engine, method):
    """S3 answers 503 to the engine's reads, or writes, while the job runs: longer than botocore
    repeats a request by itself."""
    opened, controller = (
        engine.open(command=["sh", "-c", "echo begun; sleep 1"]),
        engine.controller(),
    )
    controller.tick()
    engine.wait_for_job(opened)
    engine.cloud.add_fault(
        action="*",
        match={"Bucket": "records", "method": method},
        by=":user/",  # not the machine, whose own patience has tests of its own
        code="SlowDown",
        http=503,
        count=8,
    )

    assert engine.wait(opened, controller).outcome == "succeeded"
    assert engine.cloud.faults() == []


def test_L6_L35_a_launch_that_fails_first_or_is_delivered_twice_gives_one_machine(engine):
    """RunInstances fails before, then after its execution."""
    engine.cloud.add_fault(action="RunInstances", code="InternalError", http=500)
    engine.cloud.add_fault(action="RunInstances", code="InternalError", http=500, after=True)
    opened = engine.open(command=["true"])

    found = engine.wait(opened)

    assert found.outcome == "succeeded"
    assert len(engine.machines(opened)) == 1
    assert len({call["params"]["ClientToken"] for call in engine.launches(opened)}) == 1


def test_O8_a_report_that_may_not_be_read_is_no_missing_report(engine):
    """S3 answers 403 to who reads the report of a dead machine, and 404 to nobody."""
    opened, controller = engine.open(command=["true"]), engine.controller()
    engine.cloud.add_fault(
        action="*",
        match={"Bucket": "records", "Key": "report.json$", "method": "GET"},
        by=":user/",
        code="AccessDenied",
        http=403,
        count=2,
    )

    found = engine.wait(opened, controller)

    assert engine.cloud.faults() == []
    assert (found.outcome, found.is_from_console) == ("succeeded", False)
    assert [call for call in engine.cloud.calls("GetConsoleOutput")
            if found.machine.instance_id in str(call["params"])] == []  # fmt: skip


def test_B15_a_machine_without_an_address_ends_and_may_be_tried_again(engine):
    """The machine runs and reaches nobody, as after an address conflict or with IPv6 only."""
    engine.cloud.add_harm("network")
    opened, controller = engine.open(command=["true"], boot_timeout="2s"), engine.controller()

    found = engine.wait(opened, controller)

    # The machine that gives up first says so on its console; else nobody hears of it.
    assert found.outcome in ("setup_failed", "boot_timeout")
    assert (found.budget, found.times.started) == ("infra", None)
    assert engine.store.read_start_lock(opened.record).instance_id is None
    assert engine.cloud.states(found.machine.instance_id)[-1] == "terminated"


def test_K7_a_kill_after_the_report_leaves_the_success(engine):
    """The kill comes while the machine, its report written, still shuts down."""
    engine.cloud.add_harm("stuck", count=1)
    opened = engine.open(command=["true"])
    controller = engine.launch(opened)
    machine = engine.wait_for_lock(opened)
    engine.cloud.wait_for_state(machine, "shutting-down")

    kill_attempt(engine.store, engine.fleet, opened.jobkey, 1, Kill("cancelled", by="a person"))
    engine.cloud.client("ec2").terminate_instances(InstanceIds=[machine], Force=True)
    found = engine.wait(opened, controller)

    assert (found.outcome, found.exit_code) == ("succeeded", 0)


def test_L27_no_deadline_uses_the_clock_of_the_host(engine, monkeypatch):
    """The host's clock is a day ahead: no attempt times out for it."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    opened = engine.open(command=["sh", "-c", "sleep 1"], max_wait="1h")

    found = engine.wait(opened)

    assert found.outcome == "succeeded"
