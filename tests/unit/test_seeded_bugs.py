"""The list of seeded bugs fits the code: a bug that cannot be planted proves nothing."""

from collections import Counter
from pathlib import Path

import pytest

import airflow_ephemeral_ec2
from tests.seeded_bugs import RAN_OUT_OF_TIME, read_answer
from tests.seeded_bugs_list import SEEDED_BUGS

PACKAGE = Path(airflow_ephemeral_ec2.__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("bug", SEEDED_BUGS, ids=lambda bug: bug.name)
def test_the_text_of_a_seeded_bug_occurs_exactly_once(bug):
    sound = (PACKAGE / bug.file).read_text(encoding="utf-8")

    assert sound.count(bug.old) == 1
    assert bug.new != bug.old
    compile(sound.replace(bug.old, bug.new), bug.file, "exec")


@pytest.mark.parametrize("bug", SEEDED_BUGS, ids=lambda bug: bug.name)
def test_the_tests_that_a_seeded_bug_names_exist(bug):
    for named in bug.tests:
        path, _, test = named.partition("::")
        assert (ROOT / path).exists(), named
        assert not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), named


def test_no_two_seeded_bugs_have_the_same_name():
    names = [bug.name for bug in SEEDED_BUGS]

    assert sorted(set(names)) == sorted(names)


def test_no_two_seeded_bugs_are_the_same_bug():
    """Equal but for their names, or for blanks."""
    bugs = Counter(
        (bug.file, " ".join(bug.old.split()), " ".join(bug.new.split())) for bug in SEEDED_BUGS
    )

    assert [bug for bug, count in bugs.items() if count > 1] == []


@pytest.mark.parametrize(
    ("code", "output", "red", "problem"),
    [
        (1, "..F\nFAILED tests/unit/a.py::test_b[c] - assert 1 == 2\n", "test_b[c]", ""),
        (0, "3 passed\n", "", "SURVIVED"),
        (2, "ERROR tests/unit/a.py\n1 error\n", "", "tests could not run: ['1 error']"),
        (None, "", "", RAN_OUT_OF_TIME),
        (1, "FAILED tests/a.py::test_b - Failed: Timeout (>120.0s) from pytest-timeout.\n", "",
         RAN_OUT_OF_TIME),
    ],
)  # fmt: skip
def test_only_a_test_that_says_so_finds_a_bug(code, output, red, problem):
    assert read_answer(code, output) == (red, problem)
