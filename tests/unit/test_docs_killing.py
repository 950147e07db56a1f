"""The page of kills has the paths that the harness plays, on both versions, and no other."""

import re
from pathlib import Path

import pytest

from tests.system.killing_paths import PATHS

PAGE = Path(__file__).parents[2] / "docs" / "killing.md"
CELLS = ("title", "version", "n", "p50", "p99", "false kills", "ended by", "bound")


BOUNDS = {path.title: path.bound_seconds for path in PATHS}


def read_rows(text):
    lines = text.splitlines()
    first = lines.index("|---|---|---|---|---|---|---|---|") + 1
    found = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        found.append(dict(zip(CELLS, (c.strip() for c in line.strip("|").split("|")), strict=True)))
    return found


def read_not_held(text):
    """Return (title, version) of each row that the list above the table names."""
    above, _, _ = text.partition("\n|")
    _, _, listed = above.partition("Not held:")
    found = set()
    for line in listed.splitlines():
        if line.startswith("- "):
            versions = re.findall(r"\d\.\d+", line.rpartition("**")[2].partition(":")[0])
            found |= {(t, v) for t in re.findall(r"\*\*(.+?)\*\*", line) for v in versions}
    return found


def find_exceeding(rows):
    """Return (title, version) of each row whose p99 exceeds its bound."""
    return {
        (row["title"], row["version"])
        for row in rows
        if row["p99"].endswith(" s") and float(row["p99"][:-2]) > BOUNDS[row["title"]]
    }


@pytest.fixture(scope="module")
def rows():
    return read_rows(PAGE.read_text(encoding="utf-8"))


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


def test_a_row_that_exceeds_its_bound_is_named_above_the_table(rows):
    assert find_exceeding(rows) <= read_not_held(PAGE.read_text(encoding="utf-8"))


def test_a_row_beyond_its_bound_that_nobody_names_is_found(rows):
    """The same page without its list, and with a slower row."""
    slow = [rows[0] | {"p99": "10.1 s"}]
    bare = PAGE.read_text(encoding="utf-8").replace("**", "")

    assert find_exceeding(slow) == {(rows[0]["title"], rows[0]["version"])}
    assert not find_exceeding(slow) <= read_not_held(bare)
    assert read_not_held(bare) == set()


def test_the_page_says_the_bounds_in_seconds():
    text = PAGE.read_text(encoding="utf-8")

    for seconds in {path.bound_seconds for path in PATHS if path.is_kill}:
        assert f"{seconds:.0f} s" in text
    assert all((path.bound == "<= 10 s") is (path.bound_seconds == 10.0) for path in PATHS)


def test_the_page_says_when_where_and_how_it_was_measured():
    text = PAGE.read_text(encoding="utf-8")

    assert re.search(r"20\d\d-\d\d-\d\d", text)
    assert "python -m tests.system.killing" in text
    assert "cores" in text
