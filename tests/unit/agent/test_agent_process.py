"""The job as a systemd unit: what is asked of systemd, and what its words mean."""

import subprocess

import pytest

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.agent.process import (
    STOP_POST,
    Ending,
    job_script,
    unit_command,
    unit_ending,
)


def test_the_unit_is_unprivileged_limited_and_away_from_the_metadata():
    command = unit_command("somebody", "/work", 1800.4, 20)

    for wanted in (
        "User=somebody", "WorkingDirectory=/work", "RuntimeMaxSec=1800", "TimeoutStopSec=20",
        "IPAddressDeny=169.254.169.254 fd00:ec2::254", "NoNewPrivileges=yes", "OOMPolicy=stop",
    ):  # fmt: skip
        assert "--property=" + wanted in command


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        (
            (
                "SERVICE_RESULT=success\nEXIT_CODE=exited\nEXIT_STATUS=0\n"
                "usage_usec=2500000\nuser_usec=1\npeak=1048576\n"
            ),
            Ending(0, None, False, False, 2.5, 1048576),
        ),
        ("SERVICE_RESULT=exit-code\nEXIT_CODE=exited\nEXIT_STATUS=65\npeak=\n", Ending(65)),
        ("SERVICE_RESULT=signal\nEXIT_CODE=killed\nEXIT_STATUS=KILL\n", Ending(137, 9)),
        ("SERVICE_RESULT=core-dump\nEXIT_CODE=dumped\nEXIT_STATUS=SEGV\n", Ending(139, 11)),
        ("SERVICE_RESULT=signal\nEXIT_CODE=killed\nEXIT_STATUS=35\n", Ending(163, 35)),
        (
            "SERVICE_RESULT=oom-kill\nEXIT_CODE=killed\nEXIT_STATUS=KILL\n",
            Ending(137, 9, oom=True),
        ),
        (
            "SERVICE_RESULT=timeout\nEXIT_CODE=killed\nEXIT_STATUS=TERM\n",
            Ending(143, 15, timed_out=True),
        ),
    ],
)
def test_systemds_result_becomes_an_ending(text: str, ending: Ending):
    assert unit_ending(text) == ending


def test_a_unit_that_never_ran_is_a_failure_of_the_agent():
    with pytest.raises(Failure, match="systemd did not say"):
        unit_ending("")


def test_the_job_script_passes_hostile_values_unchanged(tmp_path):
    environ = {"A": "it's $HOME `id` \n two", "PATH": "/usr/bin:/bin"}
    argv = ["printf", "%s|%s", "$(id) 'x' \"y\"", "back\\slash"]
    script = job_script(
        ["sh", "-c", 'printf "%s" "$A"; printf "%s" "$@"', "sh", *argv[2:]], environ, str(tmp_path)
    )

    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == environ["A"] + "".join(argv[2:])


@pytest.mark.parametrize(("argv", "code"), [(["no-such-command"], 127), (["./plain"], 126)])
def test_the_job_script_ends_as_a_shell_would(tmp_path, argv, code):
    (tmp_path / "plain").write_text("not executable")
    script = job_script(argv, {"PATH": "/usr/bin:/bin"}, str(tmp_path))

    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=False)

    assert done.returncode == code


def test_what_runs_after_the_job_writes_systemds_words(tmp_path):
    script = STOP_POST.replace("/run/ephemeral-ec2", str(tmp_path))
    environ = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"}

    subprocess.run(["/bin/sh", "-c", script], env={**environ, "PATH": "/bin:/usr/bin"}, check=True)

    assert unit_ending((tmp_path / "result").read_text()).signal == 15
