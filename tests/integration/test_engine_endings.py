"""Every ending has a name: the engine, the real agent and real jobs on the local EC2."""

import hashlib
import threading

import pytest

from airflow_ephemeral_ec2.contract import code_key
from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.spec import LockFile
from tests.integration.engine import Engine

FORK_AWAY = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    os._exit(0)
os.wait()
"""
FILL_DISK = """
with open("big", "wb") as f:
    f.seek(8 * 1024**3 - 1)
    f.write(b"x")
    f.flush()
    f.write(b"x")
"""
POWER_OFF = """
import subprocess, sys
for command in (["poweroff"], ["shutdown", "-h", "now"], ["systemctl", "poweroff"]):
    subprocess.run(command)
sys.exit(4)
"""
FLOOD = "import sys\nfor _ in range(300_000): sys.stdout.write('y' * 99 + chr(10))\nsys.exit(5)"


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"state_bucket": "records"}, pending=0.1, shutting_down=0.1) as cloud:
        yield cloud


@pytest.fixture
def engine(cloud, make_spec):
    engine = Engine(cloud, make_spec)
    yield engine
    engine.forget_refusals()
    cloud.clear_faults()
    alive = {i: s for i, s in cloud.instances().items() if s != "terminated"}
    assert alive == {}


def python(code):
    return ["python3", "-c", code]


@pytest.mark.parametrize(
    ("command", "changes", "outcome", "exit_code"),
    [
        pytest.param(["true"], {}, "succeeded", 0, id="success"),
        pytest.param(["sh", "-c", "exit 65"], {}, "job_failed", 65, id="nonzero"),
        pytest.param(["sh", "-c", "exit 99"], {}, "skipped", 99, id="skip code"),
        pytest.param(["no-such-program"], {}, "job_failed", 127, id="no such command"),
        pytest.param(["/etc/hostname"], {}, "job_failed", 126, id="not executable"),
        pytest.param(["sleep", "60"], {"max_runtime": "1s"}, "job_timeout", 143, id="timeout"),
        pytest.param(["sh", "-c", "kill -9 $$"], {}, "job_failed", 137, id="signal"),
        pytest.param(
            ["sh", "-c", "kill -9 0"], {}, "job_failed", 137, id="kills its process group"
        ),
        pytest.param(python(FORK_AWAY), {}, "succeeded", 0, id="daemonises"),
        pytest.param(python(FILL_DISK), {"volume_gib": 8}, "job_failed", 1, id="fills its disk"),
        pytest.param(python(FLOOD), {"log_limit_mib": 1}, "job_failed", 5, id="floods its log"),
        pytest.param(
            ["true"], {"pre_command": ["sh", "-c", "exit 3"]}, "setup_failed", 3, id="pre_command"
        ),
    ],
)
def test_R1_R2_R7_R19_R21_an_ending_has_a_name_and_the_machine_is_gone(
    engine, command, changes, outcome, exit_code
):
    """The job exits, dies by a signal, runs too long, leaves daemons, fills its disk or floods its log."""
    found = engine.run(command, **changes)

    assert (found.outcome, found.exit_code) == (outcome, exit_code)
    states = engine.cloud.states(found.machine.instance_id)
    assert states == ["pending", "running", "shutting-down", "terminated"]
    assert found.machine.state_reason == "Client.InstanceInitiatedShutdown"


def test_a_full_disk_is_named(engine):
    found = engine.run(python(FILL_DISK), volume_gib=8)

    assert found.reason == "exit 1, disk full; raise volume_gib"


def test_a_flood_is_capped_and_counted(engine):
    found = engine.run(python(FLOOD), log_limit_mib=1)

    log = b"".join(engine.store.read_log(found.machine.arn))
    assert len(log) < 2 * 1024**2
    assert found.log_dropped_bytes > 20 * 1024**2


def test_R3_a_job_that_powers_off_is_a_named_ending(engine):
    """The job powers the machine off itself."""
    found = engine.run(python(POWER_OFF))

    assert found.outcome in ("infra_failed", "lost_status", "job_failed")
    assert found.outcome != "succeeded"


def test_L8_no_capacity_is_an_outcome_with_all_that_was_tried(engine):
    """No placement has capacity."""
    engine.cloud.add_fault(
        action="RunInstances", code="InsufficientInstanceCapacity", http=500, count=0
    )

    found = engine.run(["true"])

    assert (found.outcome, found.budget) == ("no_capacity", "infra")
    assert "m7i.large on-demand subnet-0a1, m7i.large on-demand subnet-0b2" in found.reason
    assert found.machine is None


def test_L7_capacity_elsewhere_is_used(engine):
    """The first two placements have no capacity, as HTTP 500."""
    engine.cloud.add_fault(
        action="RunInstances", code="InsufficientInstanceCapacity", http=500, count=2
    )

    found = engine.run(["true"])

    assert found.outcome == "succeeded"
    assert found.machine.instance_type == "m6i.large"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"instance_profile": "no-such-profile"}, "no-such-profile"),
        ({"subnets": ["subnet-0ffff"]}, "subnet-0ffff"),
        ({"security_groups": ["sg-0ffff"]}, "sg-0ffff"),
    ],
)
def test_L21_a_wrong_row_is_bad_config_at_once(engine, changes, word):
    """RunInstances refuses profile, subnet or security group."""
    found = engine.run(["true"], **changes)

    assert (found.outcome, found.budget) == ("bad_config", "none")
    assert word in found.reason


def test_B10_code_that_is_not_what_was_pushed_is_not_run(engine):
    """The code in the bucket has another hash."""
    sha256 = hashlib.sha256(b"pushed").hexdigest()
    engine.store.write_new(code_key("demo", sha256), b"tampered with")
    lock = LockFile.model_validate({"code": {"jobs/": {"sha256": sha256, "size_bytes": 6}}})

    found = engine.wait(engine.open(lock=lock, code="jobs/", command=["true"]))

    assert found.outcome == "setup_failed"
    assert "code_hash_mismatch" in found.reason
    assert found.times.started is None


def test_a_killed_job_ends_as_killed_and_its_machine_dies(engine):
    opened, controller = engine.open(command=["sleep", "60"]), engine.controller()
    controller.tick()
    _wait_for_start(engine, opened)

    kill_attempt(engine.store, engine.fleet, opened.jobkey, 1, Kill("cancelled", by="a person"))
    found = engine.wait(opened, controller)

    assert (found.outcome, found.reason) == ("killed", "cancelled by a person")
    assert engine.cloud.states(found.machine.instance_id)[-1] == "terminated"


def test_R14_a_machine_that_somebody_terminates_is_killed_not_retried(engine):
    """An operator terminates the machine."""
    opened, controller = engine.open(command=["sleep", "60"]), engine.controller()
    controller.tick()
    _wait_for_start(engine, opened)

    engine.fleet.terminate([controller.machine_of(opened.name)])
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("killed", "none")
    assert "not by us" in found.reason


def test_R11_a_lost_host_is_infra(engine):
    """The host dies under the machine."""
    opened, controller = engine.open(command=["sleep", "60"]), engine.controller()
    controller.tick()
    _wait_for_start(engine, opened)

    engine.cloud.kill(controller.machine_of(opened.name), "host")
    found = engine.wait(opened, controller)

    assert (found.outcome, found.budget) == ("infra_failed", "infra")


def test_L4_an_answer_that_is_lost_after_the_launch_gives_one_machine(engine):
    """RunInstances is executed and answers 500."""
    engine.cloud.add_fault(action="RunInstances", code="InternalError", http=500, after=True)
    before = len(engine.cloud.instances())

    found = engine.run(["true"])

    assert found.outcome == "succeeded"
    assert len(engine.cloud.instances()) == before + 1


def test_O2_L10_two_controllers_at_once_launch_one_machine(engine):
    """Two controllers act on one attempt at once."""
    opened = engine.open(command=["sleep", "1"])
    before = len(engine.cloud.instances())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(engine.wait(opened, engine.controller())))
        for _ in range(2)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [f.outcome for f in found] == ["succeeded"] * 2
    assert len(engine.cloud.instances()) == before + 1


def _wait_for_start(engine, opened):
    engine.cloud.wait_for(
        lambda: engine.store.read_start_lock(opened.record) is not None, what="start lock taken"
    )
