"""The agent while the world around it fails: metadata, network, time, other machines."""

import json
import signal
import sys
import time

import boto3
import pytest

from airflow_ephemeral_ec2 import contract
from tests.integration.agent_gateway import Gateway, Rule
from tests.integration.agent_machine import (
    BUCKET,
    ENV,
    INSTANCE,
    JOBKEY,
    NONCE,
    config,
    endpoint,
    machine,
    wait_until,
)

__all__ = ["endpoint", "machine"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="instances are Linux")
LOCK = contract.start_lock_key(ENV, JOBKEY, 1, NONCE)
ROLE = "arn:aws:iam::123456789012:role/acme-data"
ASK_CREDENTIALS = """
import json, os, urllib.request
def credentials():
    request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    request.add_header("Authorization", os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    return json.load(urllib.request.urlopen(request))
"""


def sh(script: str, **changes: object) -> dict[str, object]:
    return config("/bin/sh", "-c", script, **changes)


@pytest.fixture
def gateway(machine):
    """Put a gateway between this machine and moto."""
    running = Gateway(machine.endpoint)
    machine.environ["AWS_ENDPOINT_URL"] = running.url
    yield running
    running.shutdown()
    running.server_close()


def writes_lock(method: str, path: str) -> bool:
    return method == "PUT" and "start-lock" in path


def writes_report(method: str, path: str) -> bool:
    return method == "PUT" and path.endswith("/report.json")


def is_of_machine(_: str, path: str) -> bool:
    return "/machines/" in path


def test_the_lock_names_machine_boot_and_nonce(machine):
    machine.run(sh("exit 0"))

    lock = json.loads(machine.read(LOCK))
    assert (lock["instance_id"], lock["nonce"]) == (INSTANCE, NONCE)
    assert set(lock) == {"instance_id", "arn", "boot_id", "nonce", "taken_at"}


@pytest.mark.parametrize(
    "holder",
    [
        json.dumps({"instance_id": "i-0other", "nonce": NONCE}).encode(),
        json.dumps({"revoked": "killed"}).encode(),
        b"rubbish",
        b"",
        b"[" * 10_000,
    ],
    ids=["another", "revoked", "rubbish", "empty", "deep"],
)
def test_B7_a_machine_without_the_lock_does_not_run_the_job(machine, holder):
    """Another instance holds the start lock, or nobody knows who."""
    machine.s3.put_object(Bucket=BUCKET, Key=LOCK, Body=holder)

    report = machine.run(sh("echo started"))

    assert (report["phase"], report["exit_code"], report["error"]) == ("superseded", None, None)
    assert machine.log() == ""
    assert machine.is_off


def test_R12_a_second_start_of_the_agent_on_the_same_machine_does_not_run_the_job_again(machine):
    """The agent starts a second time on the same machine."""
    machine.run(sh("echo once"))
    (machine.home / "off").unlink()
    (machine.home / "bin" / "python3").unlink()
    (machine.home / "bin").rmdir()

    machine.run(sh("echo once"))

    assert machine.log() == "once\n"
    assert '"phase":"superseded"' in machine.console
    assert machine.is_off


def test_a_lost_answer_to_the_own_lock_counts_as_won(machine, gateway):
    gateway.rules.append(Rule(writes_lock, lose_answer=True, times=1))

    report = machine.run(sh("exit 0"))

    assert (report["phase"], report["exit_code"]) == ("job", 0)
    assert len([path for method, path in gateway.asked if writes_lock(method, path)]) == 2


def test_E2_a_lost_answer_to_the_report_ends_the_machine_all_the_same(machine, gateway):
    """The report is written, its answer lost."""
    gateway.rules.append(Rule(lambda m, p: p.endswith("report.json"), lose_answer=True, times=1))

    report = machine.run(sh("exit 7"))

    assert report["exit_code"] == 7
    assert machine.is_off


def test_a_conflict_on_the_lock_is_asked_again(machine, gateway):
    gateway.rules.append(Rule(writes_lock, status=409, times=2))

    assert machine.run(sh("exit 0"))["exit_code"] == 0


def test_B6_a_refused_lock_is_reported_and_the_job_not_started(machine, gateway):
    """S3 answers 403 to the start lock."""
    denied = b"<Error><Code>AccessDenied</Code></Error>"
    gateway.rules.append(Rule(writes_lock, status=403, body=denied))

    report = machine.run(sh("echo started"))

    assert report["phase"] == "lock"
    assert report["error"]["kind"] == contract.ERROR_DENIED
    assert machine.log() == ""


def test_B14_a_clock_an_hour_off_is_corrected_by_s3s_own(machine, gateway):
    """The clock of the machine is an hour off."""
    gateway.skew = 3600.0

    report = machine.run(sh("exit 0"))

    assert report["exit_code"] == 0
    started = time.strptime(report["started_at"][:19], "%Y-%m-%dT%H:%M:%S")
    expected = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() + 3600))
    assert time.strftime("%Y-%m-%dT%H", started) == expected


def test_R8_s3_away_during_the_job_holds_nothing_up_and_the_log_arrives_later(machine, gateway):
    """S3 is away while the job runs."""
    rule = Rule(is_of_machine, status=503)
    gateway.rules.append(rule)
    machine.start(sh("echo first; sleep 3; echo last; exit 5"))
    wait_until(lambda: any("/machines/" in path for _, path in gateway.asked), what="a chunk")

    rule.times = 0
    report = machine.wait()

    assert report["exit_code"] == 5
    assert machine.log() == "first\nlast\n"


@pytest.mark.parametrize("fault", [{"status": 503}, {"lose_answer": True, "status": 0}])
def test_E1_a_report_that_s3_does_not_take_at_first_is_sent_again(machine, gateway, fault):
    """S3 answers 503 to the report, or not at all, three times."""
    gateway.rules.append(Rule(writes_report, times=3, **fault))

    report = machine.run(sh("exit 65"))

    assert (report["exit_code"], report["phase"]) == (65, "job")
    asked = [path for method, path in gateway.asked if writes_report(method, path)]
    # What was written although its answer was lost is recognised when it is sent again.
    assert len(asked) == 4
    assert machine.is_off


def test_B5_a_machine_that_never_reaches_s3_runs_nothing_and_says_so(machine, gateway):
    """S3 answers nothing from the boot on."""
    gateway.rules.append(Rule(lambda _method, _path: True, status=503))

    report = machine.run(sh("echo begun", boot_timeout=2))

    assert report == {}
    assert '"phase":"lock"' in machine.console
    assert '"error":"network"' in machine.console
    assert machine.log() == ""
    assert machine.is_off


def test_R23_a_clock_that_jumps_moves_no_deadline(machine, gateway):
    """S3's time is two hours on while the job runs, and all signatures are refused at first."""
    machine.start(sh("echo up; sleep 2; exit 5", max_runtime=30))
    wait_until(lambda: "up" in machine.log(), what="the job's start")

    gateway.skew = 7_200.0
    report = machine.wait()

    assert (report["exit_code"], report["timed_out"]) == (5, False)
    assert 2 <= report["wall_seconds"] < 20


def test_E1_s3_away_for_good_leaves_the_console_marker_and_no_machine(machine, gateway):
    """S3 answers 503 to all that the machine writes after the start lock."""
    gateway.rules.append(Rule(is_of_machine, status=503))

    report = machine.run(sh("exit 65", boot_timeout=2))

    assert report == {}
    assert '"exit_code":65' in machine.console
    assert machine.is_off


def test_B2_no_metadata_at_all_leaves_the_console_marker_and_no_machine(machine):
    """The metadata service never answers."""
    machine.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:1"

    machine.run(sh("echo started", boot_timeout=1))

    assert '"phase":"credentials"' in machine.console
    assert '"error":"network"' in machine.console
    assert machine.is_off


def test_B4_credentials_that_come_late_are_waited_for(machine):
    """The role credentials are missing at first."""
    machine.metadata.credentials_after = 1.5

    assert machine.run(sh("exit 0"))["exit_code"] == 0


def test_sigterm_to_the_agent_stops_the_job_and_is_reported_as_interrupted(machine):
    process = machine.start(sh("trap 'echo saved; exit 12' TERM; echo up; sleep 60 & wait"))
    wait_until(lambda: "up" in machine.log(), what="the job's start")

    process.send_signal(signal.SIGTERM)
    report = machine.wait()

    assert (report["interrupted"], report["exit_code"], report["timed_out"]) == (True, 12, False)
    assert report["interrupted_by"] is None
    assert "saved" in machine.log()
    assert machine.is_off


def test_sigterm_before_the_job_keeps_it_from_starting(machine):
    machine.metadata.credentials_after = 3600.0
    process = machine.start(sh("echo started"))
    wait_until(
        lambda: any("security-credentials" in path for path in machine.metadata.asked),
        what="the agent to want credentials, which it does when it has its handler",
    )

    process.send_signal(signal.SIGTERM)
    machine.wait(10)

    assert '"interrupted":true' in machine.console
    assert machine.is_off


def test_R15_a_spot_notice_reaches_the_job_as_sigterm(machine):
    """EC2 gives notice of the end of a spot machine."""
    machine.start(sh("trap 'exit 13' TERM; echo up; sleep 60 & wait"))
    wait_until(lambda: "up" in machine.log(), what="the job's start")

    machine.metadata.spot_action = True
    report = machine.wait()

    assert (report["interrupted"], report["exit_code"]) == (True, 13)
    assert report["interrupted_by"] == "spot"
    assert '"interrupted_by":"spot"' in machine.console


def test_an_image_without_python_says_so_on_the_console(machine):
    machine.python = ""
    machine.environ["PATH"] = "/nonexistent"

    machine.run(sh("exit 0"))

    assert "no Python 3.9 or newer" in machine.console
    assert machine.process.returncode == 1


def test_the_job_gets_the_credentials_of_its_role_and_not_the_machines(machine):
    script = ASK_CREDENTIALS + "print(sorted(credentials()), credentials()['AccessKeyId'][:4])"

    report = machine.run(config("python3", "-c", script, job_role=ROLE))

    assert report["exit_code"] == 0
    assert "['AccessKeyId', 'Expiration', 'SecretAccessKey', 'Token'] ASIA" in machine.log()


def test_without_a_role_the_job_has_no_credentials(machine):
    machine.run(sh("env | grep -c AWS_CONTAINER; echo $AWS_EC2_METADATA_DISABLED"))

    assert machine.log() == "0\ntrue\n"


def test_credentials_are_renewed_while_the_job_runs(machine, gateway):
    issued = []

    def sts(method: str, path: str, body: bytes) -> bytes | None:
        if b"Action=AssumeRole" not in body:
            return None
        issued.append(body)
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
        return (
            f"<r><AccessKeyId>ASIA{len(issued)}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{end}</Expiration></r>"
        ).encode()

    gateway.answers = sts
    script = ASK_CREDENTIALS + (
        "import time\nfirst = credentials()['AccessKeyId']\ntime.sleep(3)\n"
        "print(first, credentials()['AccessKeyId'])"
    )

    report = machine.run(config("python3", "-c", script, job_role=ROLE))

    assert report["exit_code"] == 0
    first, second = machine.log().split()
    assert first == "ASIA1"
    assert second != first


def test_secrets_reach_the_job_and_nothing_else(machine):
    options = {"endpoint_url": machine.endpoint, "region_name": "us-east-1"}
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    ssm = boto3.client("ssm", **options, **keys)
    ssm.put_parameter(Name="/acme/db", Value="hunter2", Type="SecureString", Overwrite=True)
    manager = boto3.client("secretsmanager", **options, **keys)
    manager.create_secret(Name="acme-token", SecretString="swordfish")
    secrets = {"DB": "ssm:/acme/db", "TOKEN": "secretsmanager:acme-token"}

    report = machine.run(sh('echo "$DB $TOKEN"', secrets=secrets, job_role=ROLE))

    assert machine.log() == "hunter2 swordfish\n"
    assert "hunter2" not in json.dumps(report) + machine.console
    ssm.close()
    manager.close()


@pytest.mark.parametrize(
    ("secrets", "role", "kind"),
    [
        ({"A": "ssm:/none"}, ROLE, contract.ERROR_SECRETS),
        ({"A": "vault:x"}, ROLE, contract.ERROR_SECRETS),
        ({"A": "ssm:/none"}, None, contract.ERROR_DENIED),
    ],
)
def test_a_secret_that_cannot_be_had_keeps_the_job_from_starting(machine, secrets, role, kind):
    report = machine.run(sh("echo started", secrets=secrets, job_role=role))

    assert (report["phase"], report["error"]["kind"]) == ("secrets", kind)
    assert machine.log() == ""
