"""Every way in which a job can end, by the real user data against moto's S3."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from airflow_ephemeral_ec2 import contract
from tests.integration.agent_machine import (
    NONCE,
    alive,
    config,
    endpoint,
    machine,
    tarball,
    wait_until,
)

__all__ = ["endpoint", "machine"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="instances are Linux")


def sh(script: str, **changes: object) -> dict[str, object]:
    return config("/bin/sh", "-c", script, **changes)


def test_a_job_that_works_is_reported_with_log_result_and_numbers(machine):
    code = machine.push(tarball(job__py="print(open('data.txt').read())", data__txt="from code"))

    report = machine.run(config("python3", "job.py", code=code))

    assert (report["phase"], report["exit_code"], report["signal"]) == ("job", 0, None)
    assert report["error"] is None
    assert report["v"] == contract.CONTRACT_VERSION
    assert machine.log() == "from code\n"
    assert report["log"] == {"chunks": 1, "bytes": 10, "dropped_bytes": 0}
    assert report["cpu_seconds"] > 0
    assert report["peak_memory_bytes"] > 1 << 20
    assert report["lock_at"] <= report["code_at"] <= report["started_at"] <= report["ended_at"]
    assert machine.is_off


def test_the_result_file_travels_with_the_report(machine):
    report = machine.run(sh('echo \'{"rows": 5}\' >"$EPHEMERAL_RESULT_PATH"'))

    assert report["result"] == {"rows": 5}


def test_R21_output_never_reaches_the_console(machine):
    """The job prints; nothing of it may reach the console."""
    machine.run(sh("echo PHI; echo PHI >&2; exit 3"))

    assert "PHI" not in machine.console
    assert machine.log() == "PHI\nPHI\n"


def test_the_console_marker_is_printed_three_times(machine):
    machine.run(sh("exit 65"))

    lines = [line for line in machine.console.splitlines() if line]
    assert len(lines) == 3
    assert len(set(lines)) == 1
    word, facts, _ = lines[0].split(" ")
    assert word == contract.CONSOLE_MARKER
    assert json.loads(facts)["nonce"] == NONCE
    assert json.loads(facts)["exit_code"] == 65


@pytest.mark.parametrize("code", [0, 1, 65, 75, 99, 255])
def test_exit_codes_are_reported_as_they_are(machine, code):
    report = machine.run(sh(f"exit {code}"))

    assert (report["phase"], report["exit_code"], report["signal"]) == ("job", code, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_reported_with_128_plus_its_number(machine, number):
    report = machine.run(sh(f"kill -{number.value} $$"))

    assert (report["exit_code"], report["signal"]) == (128 + number, number)
    assert not report["timed_out"]


def test_a_command_that_does_not_exist_ends_with_127_and_says_so(machine):
    report = machine.run(config("no-such-program", "x"))

    assert (report["phase"], report["exit_code"], report["error"]) == ("job", 127, None)
    assert machine.log() == "no-such-program: No such file or directory\n"


def test_a_command_that_is_not_executable_ends_with_126(machine):
    code = machine.push(tarball(folder__x="text"))

    report = machine.run(config("/etc/passwd", code=code))

    assert (report["phase"], report["exit_code"]) == ("job", 126)


def test_a_job_over_its_time_gets_sigterm_and_is_reported_as_timed_out(machine):
    report = machine.run(sh("trap 'echo bye; exit 9' TERM; sleep 60 & wait", max_runtime=1))

    assert (report["timed_out"], report["exit_code"]) == (True, 9)
    assert machine.log() == "bye\n"


def test_R20_a_job_that_ignores_sigterm_gets_sigkill_after_its_grace(machine):
    """The job ignores SIGTERM."""
    report = machine.run(
        sh("trap '' TERM; while :; do sleep 0.1; done", max_runtime=1, stop_grace=1)
    )

    assert (report["timed_out"], report["signal"], report["oom"]) == (True, 9, False)
    assert 2 <= report["wall_seconds"] < 5


def test_the_pre_command_runs_first_and_in_the_same_folder(machine):
    report = machine.run(sh("cat made", pre_command=["/bin/sh", "-c", "echo ready >made"]))

    assert report["exit_code"] == 0
    assert machine.log() == "ready\n"


def test_a_pre_command_that_fails_keeps_the_command_from_starting(machine):
    report = machine.run(sh("echo started", pre_command=["/bin/sh", "-c", "echo no pip; exit 4"]))

    assert report["phase"] == "pre_command"
    assert report["exit_code"] == 4
    assert report["error"]["kind"] == contract.ERROR_PRE_COMMAND
    assert machine.log() == "no pip\n"


def test_the_time_of_the_pre_command_counts(machine):
    report = machine.run(sh("sleep 60", pre_command=["sleep", "1"], max_runtime=2))

    assert report["timed_out"]
    assert report["wall_seconds"] < 2


def test_code_with_another_hash_is_not_run(machine):
    digest = machine.push(tarball(a="1"))
    other = digest[::-1]
    machine.s3.copy_object(
        Bucket="agent-tests", Key=contract.code_key("t", other),
        CopySource={"Bucket": "agent-tests", "Key": contract.code_key("t", digest)},
    )  # fmt: skip

    report = machine.run(sh("echo started", code=other))

    assert report["phase"] == "code"
    assert report["error"]["kind"] == contract.ERROR_CODE_HASH
    assert digest in report["error"]["message"]
    assert machine.log() == ""
    assert machine.is_off


def test_code_that_is_not_there_is_named(machine):
    report = machine.run(sh("echo started", code="0" * 64))

    assert report["error"]["kind"] == contract.ERROR_CODE_MISSING
    assert machine.is_off


def test_what_a_job_leaves_behind_is_killed(machine):
    script = "setsid sleep 300 & echo $!; (setsid sh -c 'sleep 301' &) ; exit 0"

    start = time.monotonic()
    report = machine.run(sh(script))

    assert report["exit_code"] == 0
    assert time.monotonic() - start < 5, "a daemon held the log open"
    wait_until(lambda: not alive(int(machine.log())), 5, "the daemon's end")


def test_a_job_that_kills_its_own_process_group_is_reported(machine):
    report = machine.run(sh("kill -9 0"))

    assert (report["exit_code"], report["signal"]) == (137, 9)
    assert machine.is_off


def test_a_job_cannot_see_the_agents_environment(machine):
    machine.environ["A_SECRET_OF_THE_AGENT"] = "s"

    machine.run(sh("env"))

    assert "A_SECRET_OF_THE_AGENT" not in machine.log()
    assert "EPHEMERAL_PAYER=acme" in machine.log()


def agent_memory(pid: int) -> int:
    """Return the most bytes that a process ever had in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def test_R21_a_job_that_prints_hundreds_of_megabytes_stays_within_log_and_memory(machine):
    """The job floods its log."""
    size = 300 << 20
    process = machine.start(
        sh(f"head -c {size} /dev/zero; echo the end; exit 3", log_limit=2 << 20)
    )
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, agent_memory(process.pid))
        except OSError:
            break
        time.sleep(0.05)

    report = machine.wait()

    assert report["exit_code"] == 3
    assert report["log"]["bytes"] <= 2 << 20
    assert report["log"]["bytes"] + report["log"]["dropped_bytes"] == size + 8
    assert machine.log().endswith("the end\n")
    assert 0 < peak < 80 << 20


def test_a_disk_that_is_full_is_reported(machine):
    machine.environ["EPHEMERAL_EC2_VOLUME_BYTES"] = str(1 << 20)

    report = machine.run(sh("head -c 1000000 /dev/zero >big; exit 1"))

    assert report["disk_full"]
    assert report["disk_used_bytes"] >= 1_000_000


def test_a_file_that_reaches_the_file_size_limit_counts_as_a_full_disk(machine):
    machine.wrapper = ("/bin/sh", "-c", 'ulimit -f 4096; exec "$@"', "sh")

    report = machine.run(sh("head -c 100000000 /dev/zero >big"))

    assert report["exit_code"] != 0
    assert report["disk_full"]


def test_a_job_that_works_has_no_full_disk(machine):
    assert not machine.run(sh("exit 0"))["disk_full"]
