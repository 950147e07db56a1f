"""The commands of the README's first screen, as a user types them, in a clean folder."""

import signal
import subprocess
import sys
from contextlib import ExitStack
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
            check=False,
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


@pytest.mark.parametrize(
    ("job", "line"),
    [("eligibility", "wrong 0"), ("claims", "quarantined 1"), ("downstream", "2026-03 310.00")],
)
def test_the_other_jobs_of_the_scaffold_do_something_visible(shell, acme, job, line):
    done = shell(
        "cd acme/jobs; EPHEMERAL_PAYER=acme EPHEMERAL_BUSINESS_DATE=2026-03-01"
        f" EPHEMERAL_RESULT_PATH=../result.json python3 {job}.py"
    )

    assert done.returncode == 0, done.stderr
    assert line in done.stdout
    assert (acme / "result.json").is_file()


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


@pytest.fixture
def start(acme, environ):
    """Start the program in the scaffold; it is gone after the test, whatever happened."""
    with ExitStack() as started:

        def run(*arguments):
            process = subprocess.Popen(
                [SCRIPT / "ephemeral-ec2", *arguments],
                cwd=acme,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_machine_and_leaves_nothing(acme, start, number):
    (acme / "jobs" / "member.py").write_text(
        "import os, time\nprint(os.environ['HOME'], flush=True)\ntime.sleep(600)\n"
    )
    process = start("run", "payers.yaml", "acme", "member", "--date", "2026-03-01", "--local")
    machine = Path(process.stdout.readline().strip())
    assert machine.is_absolute()

    process.send_signal(number)
    _, story = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "its machine is gone" in story
    assert not machine.exists()


def test_the_local_ec2_in_the_foreground_says_how_to_use_it_and_stops(acme, start, shell):
    process = start("local", "--seed-from", "payers.yaml")
    exports = "".join(process.stdout.readline() for _ in range(8))

    pushed = shell(f"unset AWS_PROFILE\n{exports}\ncd acme; ephemeral-ec2 push payers.yaml")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert pushed.returncode == 0, pushed.stderr
    assert (acme / "payers.lock.json").is_file()
    assert process.returncode == 0


def test_what_a_faults_file_says_goes_wrong_from_the_start(acme, start, shell):
    """The path is the user's, relative to where the user stands."""
    (acme / "faults.yaml").write_text("- {kind: capacity, instance_type: m7i.*, count: 0}\n")
    process = start("local", "--seed-from", "payers.yaml", "--faults", "faults.yaml")
    exports = "".join(process.stdout.readline() for _ in range(8))

    done = shell(
        f"unset AWS_PROFILE\n{exports}\ncd acme; ephemeral-ec2 push payers.yaml\n"
        "ephemeral-ec2 run payers.yaml acme member --date 2026-03-01 --aws"
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert done.returncode == 1, done.stderr
    assert "InsufficientInstanceCapacity" in done.stderr
    assert "no capacity" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "- {kind: sts}\n- {kind: capcity}\n",
            [
                "rule 2: kind: 'capcity' is not known",
                "Did you mean 'capacity'?",
                "allowed: capacity",
            ],
        ),
        ("- {kind: 12}\n", ["rule 1: kind: '12' is not known; allowed: capacity"]),
        ("kind: capacity\n", ["expected a list of rules, found dict"]),
        (None, ["No such file or directory"]),
    ],
)
def test_a_faults_file_that_is_wrong_is_refused_by_name(acme, start, text, words):
    if text is not None:
        (acme / "faults.yaml").write_text(text)
    process = start("local", "--faults", "faults.yaml")

    out, errors = process.communicate(timeout=60)

    assert (process.returncode, out) == (2, "")
    for word in (str(acme / "faults.yaml"), *words):
        assert word in errors
    assert "Traceback" not in errors
