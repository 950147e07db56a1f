"""Instances of the local EC2 really run, and cannot harm their host."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.local.testing import local_ec2

AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
DONE = "the-end-of-the-script"


@pytest.fixture(scope="module")
def cloud():
    quick = {"pending": 0.1, "shutting_down": 0.1, "stop_grace": 1, "reboot_guard": 1}
    with local_ec2(max_file_bytes=1_000_000, **quick) as running:
        yield running


@pytest.fixture(scope="module")
def launch(cloud):
    ec2 = cloud.client("ec2")
    image = cloud.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]

    def run(user_data, **more):
        given = {
            "ImageId": image,
            "InstanceType": "m7i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceInitiatedShutdownBehavior": "terminate",
            "IamInstanceProfile": {"Name": "payer-machine"},
            "UserData": user_data,
            **more,
        }
        return ec2.run_instances(**given)["Instances"][0]["InstanceId"]

    return run


@pytest.fixture(scope="module")
def output(cloud, launch):
    """Run a shell script on an instance until it has ended; return what it printed."""

    def run(script):
        instance_id = launch(f"#!/bin/sh\n{script}\necho {DONE}\n")
        cloud.wait_for(lambda: DONE in _console(cloud, instance_id), what=f"{script!r} ends")
        text = _console(cloud, instance_id)
        cloud.kill(instance_id)
        return text.replace("\r\n", "\n")

    return run


def _console(cloud, instance_id):
    return cloud.client("ec2").get_console_output(InstanceId=instance_id, Latest=True)["Output"]


def _tag(key, value):
    return [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value}]}]


def _mime(boothook, script):
    return gzip.compress(
        f"""Content-Type: multipart/mixed; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/cloud-boothook

{boothook}
--b
Content-Type: text/x-shellscript

{script}
--b--
""".encode(),
        mtime=0,
    )


# -- running ----------------------------------------------------------------------------------


def test_user_data_runs_and_powers_its_instance_off(cloud, launch):
    instance_id = launch("#!/bin/sh\necho hello from $0\n$EPHEMERAL_EC2_POWEROFF\n")

    cloud.wait_for_state(instance_id, "terminated")

    last = [one for one in cloud.lines() if one.get("instance_id") == instance_id][-1]
    assert last["reason"] == "Client.InstanceInitiatedShutdown"
    assert "hello from" in _console(cloud, instance_id)


def test_the_mime_parts_run_and_the_boothook_never_does(cloud, launch, tmp_path):
    trace = tmp_path / "boothook-was-here"
    tmp_path.chmod(0o777)
    script = "#!/usr/bin/env python3\nprint('agent runs')\nimport os\nos.system('poweroff')\n"

    instance_id = launch(_mime(f"#cloud-boothook\n#!/bin/sh\ntouch {trace}\n", script))
    cloud.wait_for_state(instance_id, "terminated")

    assert "agent runs" in _console(cloud, instance_id)
    assert not trace.exists()


def test_an_agent_that_dies_leaves_its_machine_running(cloud, launch):
    instance_id = launch("#!/bin/sh\necho started\nexit 3\n")
    cloud.wait_for(lambda: "started" in _console(cloud, instance_id))

    assert cloud.instances()[instance_id] == "running"
    cloud.kill(instance_id)


def test_a_killed_agent_leaves_its_machine_running(cloud, launch):
    instance_id = launch("#!/bin/sh\necho started\nsleep 1000\n")
    cloud.wait_for(lambda: "started" in _console(cloud, instance_id))

    cloud.kill(instance_id, "agent")
    cloud.wait_for(lambda: len(_processes(instance_id)) <= 1)

    assert cloud.instances()[instance_id] == "running"
    cloud.kill(instance_id)


def test_the_watchdog_of_the_boothook_is_emulated(cloud, launch):
    instance_id = launch(
        _mime("#cloud-boothook\n#!/bin/sh\n", "#!/bin/sh\nsleep 1000\n"),
        TagSpecifications=_tag("ephemeral-ec2:max-lifetime-seconds", "1"),
    )

    cloud.wait_for_state(instance_id, "terminated")

    last = [one for one in cloud.lines() if one.get("instance_id") == instance_id][-1]
    assert last["reason"] == "Client.InstanceInitiatedShutdown"


def test_a_reboot_does_not_run_user_data_again_and_the_guard_ends_the_machine(cloud, launch):
    instance_id = launch(
        _mime("#cloud-boothook\n#!/bin/sh\n", "#!/bin/sh\necho boot\nsleep 1000\n"),
        TagSpecifications=_tag("ephemeral-ec2:max-lifetime-seconds", "1000"),
    )
    cloud.wait_for(lambda: "boot" in _console(cloud, instance_id))

    cloud.client("ec2").reboot_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    assert _console(cloud, instance_id).count("boot") == 1


def test_terminate_sends_sigterm_and_gives_a_grace(cloud, launch):
    instance_id = launch(
        "#!/bin/sh\ntrap 'echo got TERM; exit 0' TERM\necho ready\nwhile :; do sleep 0.05; done\n"
    )
    cloud.wait_for(lambda: "ready" in _console(cloud, instance_id))

    cloud.client("ec2").terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    assert "got TERM" in _console(cloud, instance_id)


def test_a_stubborn_family_of_daemons_dies_with_its_machine(cloud, launch, tmp_path):
    instance_id = launch(f"#!/usr/bin/env python3\n{STUBBORN}")
    cloud.wait_for(lambda: "daemon runs" in _console(cloud, instance_id))
    folder = cloud.instances_folder / instance_id
    assert folder.is_dir()

    cloud.client("ec2").terminate_instances(InstanceIds=[instance_id])
    cloud.wait_for_state(instance_id, "terminated")

    assert _processes(instance_id) == []
    assert not folder.exists()


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork():
        time.sleep(1000)
    os.setsid()
os.environ.clear()
print("daemon runs", flush=True)
time.sleep(1000)
"""


def test_the_console_keeps_the_last_64_kib_with_carriage_returns(cloud, launch):
    script = f"yes 0123456789 | head -c 300000; echo {DONE}"
    instance_id = launch(f"#!/bin/sh\n{script}\n")
    cloud.wait_for(lambda: DONE in _console(cloud, instance_id))

    text = _console(cloud, instance_id)

    assert len(text) == 65_536
    assert text.endswith(f"{DONE}\r\n")
    cloud.kill(instance_id)


def test_user_data_that_is_broken_is_said_on_the_console(cloud, launch):
    instance_id = launch(b"\x1f\x8b\x00broken")

    cloud.wait_for(lambda: "cannot be unpacked" in _console(cloud, instance_id))

    assert cloud.instances()[instance_id] == "running"
    cloud.kill(instance_id)


def test_python3_of_an_instance_is_this_environments(output):
    text = output('python3 -c "import polars, sys; print(sys.version_info[:2], polars.__name__)"')

    assert "(3, 1" in text
    assert "polars" in text


# -- harmless ---------------------------------------------------------------------------------


def test_an_instance_has_no_privileges(output):
    text = output("id -u; id -G; cat /proc/self/status")

    status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    assert text.splitlines()[0] != "0"
    assert status["NoNewPrivs"].strip() == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    if os.geteuid() == 0:
        assert int(status["CapBnd"], 16) == 0
        assert set(status["Uid"].split()) == {text.splitlines()[0]}
        assert status["Groups"].split() == []


def test_nothing_of_the_kernel_is_writable(output):
    text = output(
        "for f in /proc/sysrq-trigger /proc/sys/kernel/panic /proc/sys/kernel/sysrq /dev/mem "
        '/sys/power/state /dev/watchdog; do [ -w $f ] && echo "WRITABLE $f"; done; true'
    )

    assert "WRITABLE" not in text


@pytest.mark.parametrize(
    "name", ["shutdown", "poweroff", "halt", "reboot", "systemctl", "init", "telinit"]
)
def test_every_word_for_the_end_means_this_instance(cloud, launch, name):
    instance_id = launch(f"#!/bin/sh\ncommand -v {name}\n{name} -f now\nsleep 100\n")

    cloud.wait_for_state(instance_id, "terminated")

    assert f"{instance_id}/bin/{name}" in _console(cloud, instance_id)


def test_nothing_of_the_hosts_environment_reaches_an_instance(output):
    names = {line.partition("=")[0] for line in output("env").splitlines() if "=" in line}

    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH", "HOME", "TMPDIR", "LANG", "EPHEMERAL_EC2_POWEROFF",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_ENDPOINT_URL", "EPHEMERAL_EC2_LOCAL_INSTANCE",
    }  # fmt: skip


def test_an_instance_lives_in_its_own_folder(cloud, output):
    text = output("pwd; echo $HOME; echo $TMPDIR; ulimit -c; touch ok && echo wrote $(ls)")

    lines = text.splitlines()
    assert all(line.startswith(str(cloud.home)) for line in lines[:3])
    assert lines[3] == "0"
    assert "wrote" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give every instance its own user")
def test_instances_are_different_users_and_cannot_read_each_other(cloud, launch, output):
    other = launch("#!/bin/sh\necho secret >$HOME/file; echo written; sleep 1000\n")
    cloud.wait_for(lambda: "written" in _console(cloud, other))
    place = cloud.instances_folder / other / "home" / "file"

    text = output(f"id -u; cat {place} 2>&1; kill -9 {_processes(other)[0]} 2>&1; true")

    assert "secret" not in text
    assert re.search("denied|not permitted", text)
    assert cloud.instances()[other] == "running"
    assert _processes(other)
    cloud.kill(other)


def test_a_file_cannot_grow_over_the_limit(output):
    assert "size 1000000" in output("head -c 2000000 /dev/zero >big; stat -c 'size %s' big")


# -- metadata ---------------------------------------------------------------------------------

_ASK = 'curl -s -o /dev/stdout -w "|%{http_code}\\n" '
_URL = "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest"
_TOKEN = (
    'T="X-aws-ec2-metadata-token: $(curl -s -X PUT '
    f'-H X-aws-ec2-metadata-token-ttl-seconds:60 {_URL}/api/token)"\n'
)


def test_metadata_needs_a_token(output):
    text = output(
        f"{_ASK} {_URL}/meta-data/instance-id\n"
        f'{_ASK} -H "X-aws-ec2-metadata-token: wrong" {_URL}/meta-data/instance-id\n'
        f"{_ASK} -X PUT {_URL}/api/token\n"
        f"{_ASK} -X PUT -H X-aws-ec2-metadata-token-ttl-seconds:60 -H X-Forwarded-For:x {_URL}/api/token"
    )

    assert text.split() == ["|401", "|401", "|400", "|403", DONE]


def test_an_instance_learns_who_it_is(output):
    text = output(
        f'{_TOKEN}curl -s -H "$T" {_URL}/dynamic/instance-identity/document; echo; '
        f'curl -s -H "$T" {_URL}/user-data | head -1; '
        f'curl -s -H "$T" {_URL}/meta-data/iam/security-credentials/payer-machine'
    )

    identity, end = json.JSONDecoder().raw_decode(text)
    assert identity["accountId"] == "123456789012"
    assert text[end:].split("\n")[1] == "#!/bin/sh"
    assert '"AccessKeyId": "ASIA' in text


def test_a_spot_notice_reaches_the_instance(cloud, launch):
    instance_id = launch(
        f'#!/bin/sh\n{_TOKEN}while :; do curl -s -f -H "$T" '
        f"{_URL}/meta-data/spot/instance-action && break; echo none; sleep 0.1; done\n"
    )
    cloud.wait_for(lambda: "none" in _console(cloud, instance_id))

    cloud.kill(instance_id, "spot-notice")

    cloud.wait_for(lambda: '"action": "terminate"' in _console(cloud, instance_id))
    cloud.kill(instance_id)


def _processes(instance_id):
    """Find the processes of an instance by what they run or where they are, not by our own list."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "cmdline").read_bytes() + bytes((place / "cwd").readlink())
        except OSError:
            continue
        if instance_id.encode() in text:
            found.append(int(place.name))
    return found
