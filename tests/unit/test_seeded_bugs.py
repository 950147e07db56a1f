"""The list of seeded bugs fits the code: a bug that cannot be planted proves nothing."""

from pathlib import Path

import pytest

import airflow_ephemeral_ec2
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
