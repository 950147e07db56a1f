"""A bounded part of ``make killing``: real kills on the newest Airflow, and the table's sums."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.system.airflow_versions import AirflowThree
from tests.system.killing import BATCHES, Row, percentile, render, run
from tests.system.killing_acts import ACTS
from tests.system.killing_paths import PATHS


@pytest.mark.timeout(600)
def test_who_is_killed_goes_within_seconds_and_nobody_else():
    home = Path(tempfile.mkdtemp(prefix="killing-"))
    home.chmod(0o755)
    table = []

    rows = run(AirflowThree, ("failed", "clear"), 2, home, tell=table.append, bystanders=1)

    assert [row.path for row in rows] == ["failed", "clear"]
    assert all(row.is_clean for row in rows), f"logs: {home}\n" + "\n".join(table)
    assert [len(row.seconds) for row in rows] == [2, 2]
    shutil.rmtree(home)


def test_every_path_is_acted_in_one_batch():
    names = [path.name for path in PATHS]

    assert sorted(name for batch in BATCHES for name in batch) == sorted(names)
    assert sorted(ACTS) == sorted(names)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.99, 20), (1.0, 20), (0.01, 1)])
def test_a_percentile_is_one_of_the_measured_values(share, expected):
    assert percentile(range(20, 0, -1), share) == expected


@pytest.mark.parametrize(
    ("changes", "clean"),
    [({}, True), ({"false_kills": 1}, False), ({"survivors": 1}, False)],
)
def test_a_row_says_who_outlived_the_kill(changes, clean):
    row = Row(**{"path": "failed", "version": "3.3", "seconds": (1.0, 3.0), "jobs": 2,
                 "false_kills": 0, "survivors": 0} | changes)  # fmt: skip

    assert row.is_clean is clean
    assert ("outlived" in render(row, PATHS[0])) is (row.survivors > 0)
    assert "| 1.0 s | 3.0 s |" in render(row, PATHS[0])
