"""Two triggerer processes on one EC2: one decides, both serve, and either carries on alone."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.integration.engine import Engine

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 12.0
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cloud():
    with local_ec2(seed={"state_bucket": "records"}, pending=0.1, shutting_down=0.1) as cloud:
        yield cloud


@pytest.fixture
def folder():
    """A folder that instances of a root server, who are other users, can look into."""
    with tempfile.TemporaryDirectory(prefix="two-triggerers-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Triggerer:
    """One process; what it called and whom it has served."""

    def __init__(self, cloud, folder, name):
        self._calls, self._answers = folder / f"{name}.calls", folder / f"{name}.answers"
        with (folder / f"{name}.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.waiter_process",
                 str(self._calls), str(self._answers), str(LEASE_SECONDS)],
                cwd=ROOT, env=os.environ | cloud.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
            )  # fmt: skip

    def wait_for(self, *opened):
        """Let somebody wait in this process for each of these attempts."""
        for one in opened:
            self._process.stdin.write(f"{one.name}\n")
        self._process.stdin.flush()

    @property
    def served(self):
        """Attempts whose end somebody here was told -> outcome."""
        return dict(line.split() for line in _read(self._answers).splitlines())

    def heard(self, opened):
        """Return what somebody who waits here was told of an attempt."""
        lines = _read(self._answers.with_suffix(".heard")).splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith(opened.name)]

    @property
    def calls(self):
        """How often each EC2 action was called."""
        return Counter(_read(self._calls).split())

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


def _read(file):
    return file.read_text() if file.exists() else ""


@pytest.fixture
def start(cloud, folder):
    with contextlib.ExitStack() as stack:

        def start(name):
            triggerer = Triggerer(cloud, folder, name)
            stack.callback(triggerer.kill)
            return triggerer

        yield start


def test_one_of_two_decides_both_serve_and_the_other_goes_on_when_it_is_killed(
    cloud, make_spec, start, folder
):
    engine, go = Engine(cloud, make_spec), folder / "go"
    until_told = ["sh", "-c", f"until [ -e {go} ]; do sleep 0.1; done"]

    def ask(command):
        return engine.open(command=command, max_runtime="5m")

    # The first has the lease. Each serves its own: the second hears of ends that it did not see.
    first, second = start("first"), start("second")
    mine = ask(until_told)
    first.wait_for(mine)
    cloud.wait_for(lambda: engine.machines(mine), what="the first launch")
    theirs, short = ask(until_told), ask(["true"])
    second.wait_for(theirs, short)
    cloud.wait_for(lambda: second.served, what="the end of the short job")
    engine.wait_for_lock(theirs)
    cloud.wait_for(lambda: second.heard(theirs), what="the word that it was launched")

    assert second.served == {short.name: "succeeded"}
    assert first.served == {}
    assert first.calls["RunInstances"] == 3
    assert first.calls["DescribeInstances"] > 3
    assert second.calls == Counter()
    [machine] = engine.machines(theirs)
    assert second.heard(theirs)[-1] == f"launched {machine} (on-demand)"

    # Killed, with machines out. Airflow gives its triggers to the other triggerer.
    first.kill()
    late = ask(until_told)
    second.wait_for(mine, late)
    cloud.wait_for(lambda: engine.machines(late), what="a launch by the other")
    go.touch()
    cloud.wait_for(lambda: len(second.served) == 4, what="all ends")

    assert second.served == dict.fromkeys(
        [one.name for one in (mine, theirs, short, late)], "succeeded"
    )
    assert second.calls["RunInstances"] == 1
    assert second.calls["DescribeInstances"] > 1
    for one in (mine, theirs, short, late):
        assert len(engine.launches(one)) == len(engine.machines(one)) == 1
