"""A bounded part of ``make killing``: real kills on the newest Airflow, and the table's sums."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.system.airflow_versions import AirflowThree
from tests.system.killing import (
    BATCHES,
    EXIT_FINDINGS,
    EXIT_SLOW,
    Row,
    judge,
    name_exceeding,
    percentile,
    render,
    run,
)
from tests.system.killing_acts import ACTS
from tests.system.killing_paths import PATHS, REAP_SECONDS

BUSY = 3.0
"""So much slower may a machine be that runs other tests beside this one."""


@pytest.mark.timeout(600)
def test_who_is_killed_goes_within_seconds_and_nobody_else():
    home = Path(tempfile.mkdtemp(prefix="killing-"))
    home.chmod(0o755)
    table = []

    rows = run(AirflowThree, ("failed", "clear"), 2, home, tell=table.append, bystanders=1)

    assert [row.path for row in rows] == ["failed", "clear"]
    assert all(row.is_clean for row in rows), f"logs: {home}\n" + "\n".join(table)
    assert [len(row.seconds) for row in rows] == [2, 2]
    assert name_exceeding(rows, BUSY) == []
    shutil.rmtree(home)


def test_every_path_is_acted_in_one_batch():
    names = [path.name for path in PATHS]

    assert sorted(name for batch in BATCHES for name in batch) == sorted(names)
    assert sorted(ACTS) == sorted(names)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.99, 20), (1.0, 20), (0.01, 1)])
def test_a_percentile_is_one_of_the_measured_values(share, expected):
    assert percentile(range(20, 0, -1), share) == expected


def make_row(**changes):
    return Row(**{"path": "failed", "version": "3.3", "seconds": (1.0, 3.0), "jobs": 2,
                  "false_kills": 0, "survivors": 0, "bound": 10.0} | changes)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "clean"),
    [({}, True), ({"false_kills": 1}, False), ({"survivors": 1}, False)],
)
def test_a_row_says_who_outlived_the_kill(changes, clean):
    row = make_row(**changes)

    assert row.is_clean is clean
    assert ("outlived" in render(row, PATHS[0])) is (row.survivors > 0)
    assert "| 1.0 s | 3.0 s |" in render(row, PATHS[0])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 0),
        ({"seconds": (1.0, 10.0)}, 0),
        ({"seconds": (1.0, 10.1)}, EXIT_SLOW),
        ({"seconds": (1.0, 10.1), "bound": 25.0}, 0),
        ({"seconds": ()}, EXIT_SLOW),
        ({"seconds": (), "bound": None}, 0),
        ({"survivors": 1, "seconds": (44.0,)}, EXIT_FINDINGS),
        ({"false_kills": 1}, EXIT_FINDINGS),
    ],
)
def test_the_exit_status_says_whether_the_bounds_are_held(changes, status):
    assert judge([make_row(), make_row(**changes)])[0] == status


def test_the_rows_that_exceed_their_bound_are_named():
    rows = [make_row(), make_row(path="sigterm", seconds=(9.0, 44.0)), make_row(seconds=())]

    assert name_exceeding(rows) == [
        "SIGTERM to the worker, no retries left, 3.3: p99 44.0 s, bound 10 s",
        "mark failed, 3.3: nothing measured, bound 10 s",
    ]
    assert name_exceeding(rows[:2], times=5.0) == []


def test_every_path_that_kills_has_a_bound_and_no_other():
    bounds = {path.name: path.bound_seconds for path in PATHS}

    assert all((bounds[path.name] is not None) is path.is_kill for path in PATHS)
    assert bounds.pop("down") == 2 * REAP_SECONDS + 10
    assert set(bounds.values()) == {10.0, None}
