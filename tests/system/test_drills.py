"""``kill -9`` of Airflow's parts while ten jobs run: nothing twice, nothing lost, nothing left."""

import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.system.drills import (
    KINDS,
    Kill,
    Result,
    count_kills,
    find_doubles,
    find_lost,
    plan_round,
    render,
    run_rounds,
)

KEY = "0123456789abcdef"


SEED = "60"
"""Its first round kills a worker and then the triggerer."""


@pytest.mark.timeout(600)
def test_nothing_is_doubled_lost_or_left_when_parts_of_airflow_are_killed():
    number = int(os.environ.get("SEED", SEED))
    home = Path(tempfile.mkdtemp(prefix="drills-"))
    home.chmod(0o755)

    results = run_rounds(1, number, home, lease_seconds=8.0)

    table = "\n".join(render(one, result) for one, result in enumerate(results))
    assert all(result.is_clean for result in results), f"logs: {home}\n{table}"
    assert all(result.attempts >= 10 for result in results)
    assert all(result.done for result in results), f"nobody was killed\n{table}"
    shutil.rmtree(home)


def test_work_that_began_twice_in_an_attempt_is_a_double():
    assert find_doubles(Counter({(KEY, 1): 2}), Counter()) == ("01234567 a1 ran 2 times",)


def test_work_that_two_attempts_have_done_is_a_double():
    once = Counter({(KEY, 1): 1, (KEY, 2): 1})

    assert find_doubles(once, once) == ("01234567 was done 2 times",)


def test_work_that_was_broken_off_and_done_by_the_next_attempt_is_none():
    assert find_doubles(Counter({(KEY, 1): 1, (KEY, 2): 1}), Counter({(KEY, 2): 1})) == ()


@pytest.mark.parametrize(
    ("state", "outcomes", "done", "words"),
    [
        ("deferred", ["open"], 0, ["task job-0 is deferred", "job-0 a1 has no outcome"]),
        ("failed", ["killed"], 0, ["task job-0 is failed"]),
        ("success", ["succeeded"], 0, ["job-0 a1 succeeded and never came to its end"]),
        ("success", ["succeeded"], 1, []),
    ],
)
def test_what_has_no_end_or_the_wrong_one_is_lost(state, outcomes, done, words):
    ended = Counter({(KEY, 1): done})

    assert find_lost({"job-0": state}, {("job-0", KEY): outcomes}, ended) == tuple(words)


def test_the_round_of_every_test_run_kills_two_kinds_of_process():
    killed = {kill.victim for kill in plan_round(0, random.Random(int(SEED)))}

    assert killed == {"worker", "triggerer"}


def test_five_rounds_kill_every_kind_of_process():
    chance = random.Random(1)
    killed = {kill.victim for number in range(5) for kill in plan_round(number, chance)}

    assert killed == set(KINDS)


def test_a_kill_that_met_nobody_is_not_counted():
    kills = (Kill("worker", 1.0, 0.0), Kill("triggerer", 2.0, 0.0))
    result = Result(kills=kills, done=kills[1:], seconds=60.0, attempts=10,
                    outcomes={"succeeded": 10}, doubles=(), lost=(), orphans=())  # fmt: skip

    assert count_kills([result, result]) == "2 of 4 planned kills"
    assert "worker 1.0s (nobody there), triggerer 2.0s; 10 succeeded" in render(0, result)
