"""Nothing that the tests start outlives them, however they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.services import LEASH, Service, plain_environment, wait_until

# A child in a session of its own, as Airflow's workers are; it would live for minutes.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(300)
"""


def _is_alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _read_pid(path):
    return wait_until(lambda: path.exists() and path.read_text(encoding="ascii"), 10, "a child")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, None])
@pytest.mark.parametrize("options", [[], ["--stay"]])
def test_a_leash_that_is_ended_or_let_go_takes_all_it_holds_with_it(tmp_path, number, options):
    note = tmp_path / "child"
    words = [*options, str(tmp_path / "pid")] if options else []
    command = [sys.executable, "-c", PARENT, str(note)]
    leash = subprocess.Popen(
        [sys.executable, "-I", "-S", str(LEASH), *words, "0.2", *command], stdin=subprocess.PIPE
    )
    child = _read_pid(note)

    if number is None:
        leash.stdin.close()
    else:
        os.kill(leash.pid, number)
    leash.wait(10)

    assert not _is_alive(child)
    if number is not None:
        leash.stdin.close()


def test_what_a_killed_command_left_behind_lives_until_its_leash_is_let_go(tmp_path):
    note = tmp_path / "child"
    command = [sys.executable, "-c", PARENT, str(note)]
    service = Service(
        "parent", command, plain_environment(), tmp_path / "log", grace=0.2, stays=True
    )
    child = _read_pid(note)

    assert service.kill()
    wait_until(lambda: service.has_ended, 5, "the command's end")
    was_alive = _is_alive(child)
    service.stop()

    assert was_alive
    assert not _is_alive(child)
