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

from airflow_ephemeral_ec2.contract import launch_key
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
    pytest.mark.skipif(os.geteuid() != 0, reason="machines in namespaces need root"),
    pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {missing_tools()}"),
    pytest.mark.usefixtures("bootable"),
    pytest.mark.timeout(240),
]
JOB = "ephemeral-ec2-job"


@pytest.fixture(scope="module")
def bootable(cloud):
    """Skip where this host lets nobody make namespaces and mounts."""
    machine = Machine("http://127.0.0.1:9", cloud.url)
    try:
        if machine.start("/bin/true").wait(60):
            pytest.skip(f"no machine can be booted here: {machine.console()[-500:]}")
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
        self.engine = Engine(cloud, make_spec)
        self.machines = []

    def boot(self, max_lifetime=None, **changes):
        """Return the machine of a new attempt, booting."""
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
    machine.wait_for(lambda: machine.find("sleep 600"), 60, "the job")
    living = set(machine.processes())

    machine.cut_power()

    assert len(living) > 5
    assert [pid for pid in living if is_alive(pid)] == []


def test_R1_the_job_runs_as_its_own_unprivileged_unit_and_its_exit_is_reported(bench):
    """The job exits 37."""
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
    machine = bench.boot(max_lifetime=25, command=sh("echo begun; sleep 600"))
    began = time.monotonic()
    machine.wait_for(lambda: bench.lock() is not None, 60, "the start lock")
    machine.wait_for(lambda: machine.find("sleep 600"), 30, "the job")
    for pid in machine.find("python3"):
        os.kill(pid, signal.SIGSTOP)

    machine.wait(60)

    assert time.monotonic() - began > 15
    # systemd wakes what stands still before it kills it: the agent may still get a word in.
    report = bench.report()
    assert report is None or report["interrupted"]
    assert bench.verdict().outcome in ("lost_status", "infra_failed")


def test_R11_R12_boot_two_runs_nothing_again_and_ends_the_machine(bench):
    """The power is cut while the job runs; the machine boots again from the same disk."""
    machine = bench.boot(command=sh("echo begun; sleep 600"))
    machine.wait_for(lambda: b"begun" in bench.output(), 60, "the job")
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
    machine.wait_for(lambda: b"begun" in bench.output(), 60, "the job")
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
    machine.wait_for(lambda: b"begun" in bench.output(), 60, "the job")

    machine.press_power_button()
    machine.wait(60)

    report = bench.report()
    assert (report["interrupted"], report["exit_code"]) == (True, 0)
    assert b"saved" in bench.output()
    assert bench.verdict("Client.UserInitiatedShutdown").outcome == "killed"
