"""The page of kills has the paths that the harness plays, on both versions, and no other."""

import re
from pathlib import Path

import pytest

from tests.system.killing_paths import PATHS

PAGE = Path(__file__).parents[2] / "docs" / "killing.md"
CELLS = ("title", "version", "n", "p50", "p99", "false kills", "ended by", "bound")


@pytest.fixture(scope="module")
def rows():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = lines.index("|---|---|---|---|---|---|---|---|") + 1
    found = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        found.append(dict(zip(CELLS, (c.strip() for c in line.strip("|").split("|")), strict=True)))
    return found


@pytest.mark.parametrize("version", ["2.11", "3.3"])
def test_the_table_of_kills_is_the_list_of_the_harness(rows, version):
    mine = [row for row in rows if row["version"] == version]

    assert [(row["title"], row["ended by"], row["bound"]) for row in mine] == [
        (path.title, path.ended_by, path.bound) for path in PATHS
    ]


def test_no_living_job_was_killed(rows):
    measured = [row for row in rows if row["n"] != "not measured"]

    assert measured
    assert {row["false kills"] for row in measured} == {"0"}


def test_the_page_says_when_where_and_how_it_was_measured():
    text = PAGE.read_text(encoding="utf-8")

    assert re.search(r"20\d\d-\d\d-\d\d", text)
    assert "python -m tests.system.killing" in text
    assert "cores" in text
