"""Nothing survives a local EC2, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.local import guest_processes
from airflow_ephemeral_ec2.local.guest_python import guest_python_folder
from airflow_ephemeral_ec2.local.testing import LocalCloud, local_ec2

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
STUBBORN = """#!/usr/bin/env python3
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    time.sleep(1000)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
print("daemon runs", flush=True)
os.execve("/bin/sleep", ["sleep", "987654"], {})
"""


@pytest.fixture
def home(tmp_path):
    tmp_path.chmod(0o711)
    return tmp_path / "cloud"


def _launch(cloud, script=STUBBORN, count=1):
    image = cloud.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
    made = cloud.client("ec2").run_instances(
        ImageId=image,
        InstanceType="m7i.large",
        MinCount=count,
        MaxCount=count,
        UserData=script,
        InstanceInitiatedShutdownBehavior="terminate",
    )
    return [one["InstanceId"] for one in made["Instances"]]


def _await_daemons(cloud, ids):
    ec2 = cloud.client("ec2")
    for one in ids:
        cloud.wait_for(
            lambda one=one: "daemon runs" in ec2.get_console_output(InstanceId=one)["Output"]
        )


def _family(pid):
    """List a process and all its descendants, daemons below a subreaper included."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(place.parent.name)] = int(fields[1])
    family = {pid}
    while more := {one for one, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _alive(pids):
    found = set()
    for pid in pids:
        try:
            state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in {"Z", "X"}:
            found.add(pid)
    return found


def _sleepers():
    found = set()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"987654" in place.read_bytes():
                found.add(int(place.parent.name))
        except OSError:
            continue
    return found


def _gone_within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_kill_9_of_the_server_leaves_no_process_no_mount_and_no_folder(home):
    mounts = Path("/proc/mounts").read_text()
    with local_ec2(home=home, pending=0, state_file=home / "state.json") as cloud:
        _await_daemons(cloud, _launch(cloud, count=2))
        family = _family(cloud.process.pid)
        sleepers = _sleepers() & family
        assert len(sleepers) == 2

        cloud.process.kill()
        cloud.process.wait()

        assert _gone_within(10, lambda: not _alive(family)), _alive(family)
        left = {one.name for one in home.iterdir()}
    assert left <= {"api-log.jsonl", "seed.json", "stderr.log"}
    assert Path("/proc/mounts").read_text() == mounts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_and_says_so_in_the_log(home, number):
    with local_ec2(home=home, pending=0, state_file=home / "state.json") as cloud:
        _await_daemons(cloud, _launch(cloud))
        family = _family(cloud.process.pid)

        cloud.process.send_signal(number)

        assert cloud.process.wait(10) == 0
        assert not _alive(family - {os.getpid()})
        assert cloud.lines()[-1]["event"] == "stopped"
    assert {one.name for one in home.iterdir()} == {"api-log.jsonl", "seed.json", "stderr.log"}


def test_a_caller_that_vanishes_takes_its_server_with_it(home):
    with local_ec2(home=home, pending=0) as cloud:
        _await_daemons(cloud, _launch(cloud))
        family = _family(cloud.process.pid)

        cloud.process.stdin.close()

        assert cloud.process.wait(10) == 0
        assert not _alive(family)


def test_a_supervisor_that_is_killed_does_not_leak_its_instance(home):
    with local_ec2(home=home, pending=0) as cloud:
        (instance_id,) = _launch(cloud)
        _await_daemons(cloud, [instance_id])
        family = _family(cloud.process.pid)
        (sleeper,) = _sleepers() & family
        supervisors = [
            pid for pid in family
            if b"supervisor.main" in Path("/proc", str(pid), "cmdline").read_bytes()
        ]  # fmt: skip
        assert len(supervisors) == 1
        assert sleeper not in supervisors

        os.kill(supervisors[0], signal.SIGKILL)

        if os.geteuid() == 0:
            assert _gone_within(10, lambda: not _alive(_sleepers() & family))
        assert _gone_within(10, lambda: not (cloud.instances_folder / instance_id).exists())


def test_many_instances_at_once_all_run_and_all_end():
    script = "#!/bin/sh\necho one\npoweroff\nsleep 100\n"
    with local_ec2() as cloud:
        began = time.monotonic()
        made = _launch(cloud, script, count=40)

        for one in made:
            cloud.wait_for_state(one, "terminated", seconds=60)

        seconds = time.monotonic() - began
        reasons = {one["reason"] for one in cloud.lines() if one.get("state") == "terminated"}
        family = _family(cloud.process.pid)
    assert len(set(made)) == 40
    assert reasons == {"Client.InstanceInitiatedShutdown"}
    assert len(family) <= 2, "only the server and its sweeper are left"
    assert seconds < 60


def test_a_private_home_folder_is_no_obstacle(tmp_path):
    tmp_path.chmod(0o700)
    with local_ec2(home=tmp_path / "cloud", pending=0) as cloud:
        (instance_id,) = _launch(cloud, "#!/bin/sh\npython3 -c 'print(6 * 7)'\npoweroff\n")

        cloud.wait_for_state(instance_id, "terminated")

        text = cloud.client("ec2").get_console_output(InstanceId=instance_id)["Output"]
    assert "42" in text


@pytest.fixture(scope="module")
def ordinary_python(tmp_path_factory):
    """Return a command that runs this Python as another user who is nobody special."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    place = tmp_path_factory.mktemp("python")
    _open_to_all(place)
    python = guest_python_folder(place / "mirror", other_user=True) / "python3"
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(python)]


def _open_to_all(folder):
    folder.chmod(0o777)
    for place in folder.parents:
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o711)


def test_an_ordinary_user_can_be_kept_from_a_socket_of_the_host(tmp_path, ordinary_python):
    _open_to_all(tmp_path)
    secret = tmp_path / "system_bus_socket"
    secret.write_text("the host")
    scripts = Path(guest_processes.__file__).parent
    script = (
        f"import sys; sys.path.append({str(scripts)!r}); import guest_processes\n"
        f"guest_processes.hide([{str(secret)!r}])\n"
        f"import os; print(os.getuid(), repr(open({str(secret)!r}).read()))\n"
        f"os.execv('/bin/sh', ['sh', '-c', 'cat {secret}; grep CapEff /proc/self/status'])\n"
    )

    found = subprocess.run(
        [*ordinary_python, "-u", "-c", script], capture_output=True, text=True, check=False
    )

    if "Operation not permitted" in found.stderr:
        pytest.skip("no user namespaces for ordinary users here")
    assert found.stdout.split() == ["65534", "''", "CapEff:", "0" * 16]
    assert secret.read_text() == "the host"


def test_an_ordinary_user_gets_the_same(tmp_path, ordinary_python):
    _open_to_all(tmp_path)
    command = [
        *ordinary_python, "-m", "airflow_ephemeral_ec2.local", "--home", str(tmp_path / "cloud"), "--pending=0",
        "--end-with-stdin", "--stop-grace=1",
    ]  # fmt: skip
    server = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        found = _run_as_ordinary_user(server, tmp_path)
    finally:
        server.kill()
        server.communicate()
    assert found["console"].startswith("65534")
    assert "1000" not in found["console"].split()[1:2]
    assert _gone_within(10, lambda: not _alive(found["family"])), _alive(found["family"])
    assert not list((tmp_path / "cloud").glob("instances*"))


def _run_as_ordinary_user(server, tmp_path):
    facts = json.loads(server.stdout.readline())
    cloud = LocalCloud(
        facts["url"], Path(facts["home"]), Path(facts["instances"]), Path(facts["api_log"]), "local", "local",
        facts["account"], server,
    )  # fmt: skip
    (worker,) = _launch(cloud, "#!/bin/sh\nid -u\ngrep NoNewPrivs /proc/self/status\npoweroff\n")
    cloud.wait_for_state(worker, "terminated")
    console = cloud.client("ec2").get_console_output(InstanceId=worker)["Output"]
    (ended,) = _launch(cloud)
    _await_daemons(cloud, [ended])
    before = _sleepers() & _family(server.pid)
    cloud.client("ec2").terminate_instances(InstanceIds=[ended])
    cloud.wait_for_state(ended, "terminated")
    assert before
    assert not _alive(before)
    _await_daemons(cloud, _launch(cloud))
    return {"console": console, "family": _family(server.pid)}


def test_a_wrong_seed_is_one_clear_line(tmp_path):
    seed = tmp_path / "seed.json"
    seed.write_text('{"bucket": "x"}')

    found = subprocess.run(
        [sys.executable, "-m", "airflow_ephemeral_ec2.local", "--home", tmp_path, "--seed", seed],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert found.returncode == 2
    assert found.stderr.startswith("ephemeral-ec2 local: unknown: bucket; allowed: buckets,")
    assert "Traceback" not in found.stderr
