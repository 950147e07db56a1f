"""The product's own user data on real cloud-init and real systemd, in namespaces."""

import base64
import json
import os
import signal
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.contract import launch_key, start_lock_key
from airflow_ephemeral_ec2.hooks.agent_bundle import agent_source
from airflow_ephemeral_ec2.hooks.endings import collect_evidence
from airflow_ephemeral_ec2.local.testing import local_ec2
from airflow_ephemeral_ec2.model.outcome import Observation
from airflow_ephemeral_ec2.model.report import read_marker
from airflow_ephemeral_ec2.model.user_data import render_user_data
from tests.integration.engine import Engine
from tests.machine.machine import Machine, is_alive
from tests.machine.rootfs import missing_tools

pytestmark = [
    pytest.mark.usefixtures("bootable"),
    pytest.mark.timeout(240),
]
JOB = "ephemeral-ec2-job"
BOOT_SECONDS = 120
"""A boot takes some seconds, also beside two others; busy cores may need more."""


def give_up(reason):
    """A run that shows nothing must not look like one that does, where it was asked for."""
    if os.environ.get("REQUIRE_MACHINES"):
        pytest.fail(f"REQUIRE_MACHINES is set: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def bootable(cloud):
    """Skip where this host lets nobody make namespaces and mounts; fail if they are required."""
    if os.geteuid() != 0:
        give_up("machines in namespaces need root")
    if missing := missing_tools():
        give_up(f"not installed: {missing}")
    machine = Machine("http://127.0.0.1:9", cloud.url)
    try:
        if machine.start("/bin/true").wait(60):
            give_up(f"no machine can be booted here: {machine.console()[-500:]}")
    finally:
        machine.close()


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"state_bucket": "records"}, pending=0.05, shutting_down=0.05) as cloud:
        yield cloud


class Bench:
    """Launches attempts whose machines are booted here, not by the local EC2."""

    def __init__(self, cloud, make_spec):
        self.cloud = cloud
        # One run: what earlier tests have left open would keep another run waiting.
        self.engine = Engine(cloud, make_spec, run="machines")
        self.machines = []

    def boot(self, max_lifetime=None, prepare=lambda machine: None, **changes):
        """
        Return the machine of a new attempt, booting.

        :param prepare: does something to the machine before it boots
        """
        self.cloud.add_harm("no-user-data")
        self.opened = self.engine.open(**changes)
        if max_lifetime:
            self._shorten(max_lifetime)
        self.controller = self.engine.launch(self.opened)
        self.instance_id = self.controller.machine_of(self.opened.name)
        self.controller.release()
        self.cloud.wait_for_state(self.instance_id, "running")
        url = self.cloud.metadata_url(self.instance_id)
        machine = Machine(url, self.cloud.url)
        self.machines.append(machine)
        prepare(machine)
        return machine.start()

    def _shorten(self, seconds):
        """Give the boothook a shorter life than any row may have."""
        record = self.opened.record
        script = zlib.decompress(base64.b64decode(record.user_data), 31).decode()
        blob = script.rpartition('main("')[2].partition('"')[0]
        config = json.loads(zlib.decompress(base64.b64decode(blob)))
        fresh = render_user_data(config | {"max_lifetime": seconds}, agent=agent_source())
        record = record.model_copy(update={"user_data": base64.b64encode(fresh).decode()})
        key = launch_key("demo", record.jobkey, record.attempt)
        self.cloud.client("s3").put_object(
            Bucket="records", Key=key, Body=record.model_dump_json().encode()
        )
        self.opened = replace(self.opened, record=record)

    def give_lock_away(self, _machine):
        """Let another machine of the attempt have been faster."""
        record = self.opened.record
        key = start_lock_key("demo", record.jobkey, record.attempt, record.nonce)
        body = {"instance_id": "i-0123456789abcdef0", "nonce": record.nonce}
        self.cloud.client("s3").put_object(
            Bucket="records", Key=key, Body=json.dumps(body).encode()
        )

    def lock(self):
        return self.engine.store.read_start_lock(self.opened.record)

    def output(self):
        return b"".join(self.engine.store.read_log(self.arn))

    @property
    def arn(self):
        return f"arn:aws:ec2:us-east-1:{self.cloud.account}:instance/{self.instance_id}"

    def report(self):
        body = self.engine.store.read_report(self.arn)
        return None if body is None else json.loads(body)

    def verdict(self, reason="Client.InstanceInitiatedShutdown"):
        look = Observation(self.instance_id, "terminated", reason, arn=self.arn)
        record = self.opened.record
        marker = read_marker(self.machines[-1].console(), record.nonce)
        return collect_evidence(self.engine.store, record, look).judge(record.spec, look, marker)


@pytest.fixture
def bench(cloud, make_spec):
    bench = Bench(cloud, make_spec)
    yield bench
    for machine in bench.machines:
        machine.close()
    cloud.clear_harms()
    for instance_id, state in cloud.instances().items():
        if state != "terminated":
            cloud.kill(instance_id, "host")


def sh(script):
    return ["sh", "-c", script]


def _mounts():
    """Return what is mounted here, other machines' network namespaces aside."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return [line for line in lines if not line.startswith("nsfs ") and " /run/netns" not in line]


def test_a_machine_can_harm_nothing_of_its_host(cloud):
    mounts = _mounts()
    panic = Path("/proc/sys/kernel/panic").read_text()
    machine = Machine("http://127.0.0.1:9", cloud.url)
    harmless = "h"  # sysrq's help: should it ever get through, nothing happens
    script = (
        f"echo {harmless} >/proc/sysrq-trigger; echo sysrq $?; "
        "sysctl -w kernel.panic=77; echo sysctl $?; "
        "kill -9 -1; systemctl --force --force poweroff; reboot -f; halt -f -p; sleep 5"
    )
    try:
        machine.start("/bin/sh", "-c", script)
        machine.wait(30)
        said = machine.console()
    finally:
        machine.close()

    assert "sysctl 0" not in said
    assert "sysrq 0" not in said
    assert Path("/proc/sys/kernel/panic").read_text() == panic
    assert _mounts() == mounts
    assert not Path(machine.network.path).exists()
    assert not machine.home.exists()


def test_all_of_a_machine_dies_with_the_one_who_started_it(bench):
    machine = bench.boot(command=sh("echo begun; sleep 600"))
    machine.wait_for(lambda: machine.find("sleep 600"), BOOT_SECONDS, "the job")
    living = set(machine.processes())

    machine.cut_power()

    assert len(living) > 5
    assert [pid for pid in living if is_alive(pid)] == []


def test_B11_R1_the_boot_goes_on_and_the_job_is_a_unit_whose_exit_is_reported(bench):
    """The boothook has run, and the job exits 37."""
    script = "echo user $(id -u); cat /proc/self/cgroup; id -u; exit 37"
    machine = bench.boot(command=sh(script))

    machine.wait(90)

    report, console = bench.report(), machine.console()
    assert (report["exit_code"], report["phase"]) == (37, "job")
    assert report["nonce"] == bench.opened.record.nonce
    assert read_marker(console, report["nonce"]).exit_code == 37
    assert b"user 0" not in bench.output()
    assert JOB.encode() in bench.output()
    assert bench.lock().instance_id == bench.instance_id
    verdict = bench.verdict()
    assert (verdict.outcome, verdict.reason) == ("job_failed", "exit 37")


def test_R9_the_watchdog_of_the_boothook_ends_a_machine_that_hangs(bench):
    """Agent and job stand still; only the boothook's watchdog is left."""
    # Three machines boot at once on two cores: it must outlive its own boot.
    machine = bench.boot(max_lifetime=60, command=sh("echo begun; sleep 600"))
    began = time.monotonic()
    machine.wait_for(lambda: bench.lock() is not None, BOOT_SECONDS, "the start lock")
    machine.wait_for(lambda: machine.find("sleep 600"), 30, "the job")
    for pid in machine.find("python3"):
        os.kill(pid, signal.SIGSTOP)

    machine.wait(105)

    assert time.monotonic() - began > 15
    # systemd wakes what stands still before it kills it: the agent may still get a word in.
    report = bench.report()
    assert report is None or report["interrupted"]
    assert bench.verdict().outcome in ("lost_status", "infra_failed")


def test_R11_R12_boot_two_runs_nothing_again_and_ends_the_machine(bench):
    """The power is cut while the job runs; the machine boots again from the same disk."""
    machine = bench.boot(command=sh("echo begun; sleep 600"))
    machine.wait_for(lambda: b"begun" in bench.output(), BOOT_SECONDS, "the job")
    machine.cut_power()

    machine.start()
    began = time.monotonic()
    machine.wait_for(
        lambda: (machine.file("/var/lib/ephemeral-ec2/boots") or "").strip() == "2", 30, "boot 2"
    )
    time.sleep(8)
    assert machine.find("sleep 600") == []
    machine.wait(90)

    assert 40 < time.monotonic() - began < 90
    assert bench.output().count(b"begun") == 1
    assert bench.verdict().outcome == "lost_status"


def test_R8_B5_a_machine_that_loses_its_network_says_so_on_its_console_and_ends(bench):
    """The endpoint takes connections and never answers, from the lock on."""
    machine = bench.boot(command=sh("echo begun; sleep 3; exit 37"), boot_timeout="20s")
    machine.wait_for(lambda: b"begun" in bench.output(), BOOT_SECONDS, "the job")
    machine.endpoint.is_hole = True

    machine.wait(100)

    assert bench.report() is None
    assert read_marker(machine.console(), bench.opened.record.nonce).exit_code == 37
    verdict = bench.verdict()
    assert (verdict.outcome, verdict.reason) == ("job_failed", "exit 37")


def test_B4_credentials_that_come_late_are_waited_for(bench):
    """The role credentials are missing for the first seconds."""
    bench.cloud.add_harm("no-credentials", seconds=12)
    machine = bench.boot(command=sh("exit 0"))

    machine.wait(90)

    assert bench.verdict().outcome == "succeeded"


def test_R20_R19_a_job_that_ignores_sigterm_is_killed_after_its_grace(bench):
    """The job runs too long and traps SIGTERM."""
    script = 'trap "" TERM; echo begun; while :; do sleep 1; done'
    machine = bench.boot(command=sh(script), max_runtime="3s", stop_grace="2s")

    machine.wait(90)

    report = bench.report()
    assert (report["timed_out"], report["exit_code"]) == (True, 137)
    assert bench.verdict().outcome == "job_timeout"


def test_R2_R3_what_a_job_leaves_behind_ends_with_it_and_it_cannot_power_off(bench):
    """The job leaves a daemon, then tries every way to end the machine."""
    script = (
        "(setsid sleep 500 &); "
        "poweroff; reboot; systemctl poweroff; halt -f; echo s >/proc/sysrq-trigger; "
        "sleep 2; echo still here; exit 5"
    )
    machine = bench.boot(command=sh(script))

    machine.wait(90)

    assert b"still here" in bench.output()
    assert bench.report()["exit_code"] == 5


def test_R14_the_power_button_stops_the_job_and_its_report_still_arrives(bench):
    """Somebody terminates the instance while the job runs."""
    script = 'trap "echo saved; exit 0" TERM; echo begun; while :; do sleep 0.2; done'
    machine = bench.boot(command=sh(script))
    machine.wait_for(lambda: b"begun" in bench.output(), BOOT_SECONDS, "the job")

    machine.press_power_button()
    machine.wait(60)

    report = bench.report()
    assert (report["interrupted"], report["exit_code"]) == (True, 0)
    assert b"saved" in bench.output()
    assert bench.verdict("Client.UserInitiatedShutdown").outcome == "killed"


def test_B7_a_machine_that_lost_the_start_lock_runs_nothing_and_ends(bench):
    """Another machine of the attempt has the start lock."""
    machine = bench.boot(command=sh("echo begun; sleep 600"), prepare=bench.give_lock_away)

    machine.wait(90)

    assert bench.report()["phase"] == "superseded"
    assert bench.output() == b""
    assert bench.lock().instance_id == "i-0123456789abcdef0"


def test_B5_a_machine_that_never_reaches_s3_says_so_on_its_console_and_ends(bench):
    """The endpoint takes connections and never answers, from the boot on."""

    def cut(machine):
        machine.endpoint.is_hole = True

    machine = bench.boot(command=sh("echo begun; sleep 600"), boot_timeout="20s", prepare=cut)

    machine.wait(100)

    assert (bench.lock(), bench.report(), bench.output()) == (None, None, b"")
    marker = read_marker(machine.console(), bench.opened.record.nonce)
    assert (marker.phase, marker.error_kind) == ("lock", "network")
    verdict = bench.verdict()
    assert (verdict.outcome, verdict.budget) == ("setup_failed", "infra")


def without_dbus(machine):
    for unit in ("dbus.service", "dbus.socket"):
        machine.mask(unit)


def test_B12_without_a_bus_the_job_runs_and_is_reported(bench):
    """There is no D-Bus."""
    machine = bench.boot(
        command=sh("ls /run/dbus/system_bus_socket; exit 37"), prepare=without_dbus
    )

    machine.wait(90)

    assert b"No such file" in bench.output()
    assert bench.report()["exit_code"] == 37


def test_B12_without_a_bus_the_watchdog_fires(bench):
    """There is no D-Bus, and agent and job stand still."""
    machine = bench.boot(max_lifetime=25, command=sh("echo begun; sleep 600"), prepare=without_dbus)
    machine.wait_for(lambda: machine.find("sleep 600"), BOOT_SECONDS, "the job")
    assert machine.find("dbus-daemon") == []
    for pid in machine.find("python3"):
        os.kill(pid, signal.SIGSTOP)

    machine.wait(60)

    assert bench.verdict().outcome in ("lost_status", "infra_failed")


def test_B13_nothing_of_ours_is_executed_from_run_or_tmp(bench):
    """Both are mounted noexec."""

    def forbid(machine):
        machine.write(
            "/usr/sbin/machine-init",
            "#!/bin/sh\nmount -o remount,noexec /run && mount -o remount,noexec /tmp || exit 9\n"
            'unset container\nexec /lib/systemd/systemd "$@"\n',
            0o755,
        )

    machine = bench.boot(
        command=sh("grep -E '^[^ ]+ /(run|tmp) ' /proc/mounts; exit 37"), prepare=forbid
    )

    machine.wait(90)

    mounts = bench.output().decode().splitlines()
    assert {line.split()[1] for line in mounts if "noexec" in line} == {"/run", "/tmp"}
    assert bench.report()["exit_code"] == 37


def test_R4_an_agent_that_is_killed_ends_the_machine_at_once(bench):
    """The agent gets SIGKILL while the job runs."""
    machine = bench.boot(command=sh("echo begun; sleep 600"))
    machine.wait_for(lambda: b"begun" in bench.output(), BOOT_SECONDS, "the job")

    for pid in machine.find("python3"):
        os.kill(pid, signal.SIGKILL)
    machine.wait(60)

    assert bench.report() is None
    assert bench.verdict().outcome == "lost_status"
