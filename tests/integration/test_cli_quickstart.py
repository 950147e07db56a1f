"""The commands of the README's first screen, as a user types them, in a clean folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).parent


@pytest.fixture
def environ(tmp_path):
    """Make a user's shell: no settings, no AWS, and an Airflow home that must stay unmade."""
    return {
        "PATH": f"{SCRIPT}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AWS_PROFILE": "the-users-own-and-not-to-be-used",
    }


@pytest.fixture
def shell(tmp_path, environ):
    def run(script, timeout=100):
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def acme(shell, tmp_path):
    shell("ephemeral-ec2 init acme")
    return tmp_path / "acme"


def test_the_commands_of_the_readme_work_verbatim_in_a_clean_folder(shell, tmp_path):
    done = shell(
        "ephemeral-ec2 init acme && cd acme\n"
        "ephemeral-ec2 validate payers.yaml\n"
        "ephemeral-ec2 run payers.yaml acme member --date 2026-03-01 --local\n"
    )

    assert done.returncode == 0, done.stderr
    assert "acme 2026-03-01: covered 3" in done.stdout
    assert "acme/member 2026-03-01, attempt 1: succeeded" in done.stderr
    assert not (tmp_path / "airflow").exists()


def test_every_job_of_the_scaffold_runs(shell, acme):
    for job, line in (
        ("eligibility", "wrong 0"),
        ("claims", "quarantined 1"),
        ("downstream", "2026-03 310.00"),
    ):
        done = shell(f"cd acme; ephemeral-ec2 run payers.yaml acme {job} --date 2026-03-01 --local")

        assert done.returncode == 0, done.stderr
        assert line in done.stdout


def test_a_failing_job_gives_its_own_exit_code_and_output(shell, acme):
    (acme / "jobs" / "member.py").write_text(
        "print('bad data', flush=True)\nraise SystemExit(65)\n"
    )

    done = shell("cd acme; ephemeral-ec2 run payers.yaml acme member --date 2026-03-01 --local")

    assert done.returncode == 65
    assert done.stdout == "bad data\n"
    assert "job failed" in done.stderr


def test_files_go_in_and_come_out(shell, acme, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "today.csv").write_text("1\n2\n")
    table = (acme / "payers.yaml").read_text()
    (acme / "payers.yaml").write_text(
        table.replace("acme: {", "acme: {job_role: acme-data, env: {DATA_BUCKET: payer-data}, ")
    )
    (acme / "jobs" / "member.py").write_text(
        "import boto3, os\n"
        "s3 = boto3.client('s3')\n"
        "body = s3.get_object(Bucket=os.environ['DATA_BUCKET'],\n"
        "    Key='incoming/acme/2026-03-01/today.csv')['Body'].read()\n"
        "s3.put_object(Bucket=os.environ['DATA_BUCKET'], Key='payers/acme/out.csv', Body=body)\n"
    )

    done = shell(
        "cd acme; ephemeral-ec2 run payers.yaml acme member --date 2026-03-01 --local"
        " --input ../in --output ../out"
    )

    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "out" / "out.csv").read_text() == "1\n2\n"


def test_secrets_come_from_the_callers_environment(shell, acme):
    table = (acme / "payers.yaml").read_text()
    (acme / "payers.yaml").write_text(
        table.replace(
            "acme: {",
            "acme: {job_role: acme-data,"
            " secrets: {FIRST: 'ssm:/acme/first', SECOND: secretsmanager:acme/second}, ",
        )
    )
    (acme / "jobs" / "member.py").write_text(
        "import os\nprint(os.environ['FIRST'][::-1], os.environ['SECOND'][::-1])\n"
    )

    done = shell(
        "cd acme; FIRST=abc SECOND=xyz"
        " ephemeral-ec2 run payers.yaml acme member --date 2026-03-01 --local"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "cba zyx\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_machine_and_leaves_nothing(acme, environ, tmp_path, number):
    marker = tmp_path / "pid"
    marker.touch()
    marker.chmod(0o666)
    (acme / "jobs" / "member.py").write_text(
        f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    )
    tmp_path.chmod(0o755)
    command = ["run", "payers.yaml", "acme", "member", "--date", "2026-03-01", "--local"]
    process = subprocess.Popen(
        [SCRIPT / "ephemeral-ec2", *command],
        cwd=acme,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    _, story = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "its machine is gone" in story
    assert _ends(int(marker.read_text() or 0))


def _ends(pid):
    deadline = time.monotonic() + 10
    while pid and Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_local_ec2_in_the_foreground_says_how_to_use_it_and_stops(acme, environ):
    process = subprocess.Popen(
        [SCRIPT / "ephemeral-ec2", "local", "--seed-from", "payers.yaml"],
        cwd=acme,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        lines = [process.stdout.readline() for _ in range(8)]
        exported = dict(line.strip().removeprefix("export ").split("=", 1) for line in lines)
        del environ["AWS_PROFILE"]
        command = ["push", "payers.yaml"]
        pushed = subprocess.run(
            [SCRIPT / "ephemeral-ec2", *command],
            cwd=acme,
            env=environ | exported,
            capture_output=True,
            text=True,
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert pushed.returncode == 0, pushed.stderr
    assert (acme / "payers.lock.json").is_file()
    assert process.returncode == 0
    assert not os.path.exists(f"/proc/{process.pid}")
