"""The page of outcomes says what the code says, both ways."""

import re
from pathlib import Path

import pytest

from airflow_ephemeral_ec2 import exceptions
from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error, JobEndedError, ending_errors
from airflow_ephemeral_ec2.model.outcome import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "outcomes.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \[`(\w+)`\]\(#([a-z-]+)\) \| `(\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
UNRAISED = {Outcome.SUCCEEDED, Outcome.SKIPPED}


def test_each_ending_but_success_and_skip_has_an_exception_and_a_row():
    endings = {outcome.value for outcome in Outcome if outcome not in UNRAISED}

    assert {row[0] for row in ROWS} == endings == set(ending_errors())


@pytest.mark.parametrize(("outcome", "anchor", "name", "parent"), ROWS, ids=str)
def test_a_row_names_the_exception_its_parent_and_a_paragraph(outcome, anchor, name, parent):
    kind = ending_errors()[outcome]

    assert (kind.__name__, kind.__bases__[0].__name__) == (name, parent)
    assert f"### {anchor}\n" in PAGE


def test_every_exception_is_on_the_page():
    names = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, EphemeralEC2Error)
    }

    assert {name for name in names if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize("kind", ending_errors().values(), ids=lambda k: k.__name__)
def test_each_ending_has_its_own_advice(kind):
    others = [other.advice for other in ending_errors().values() if other is not kind]

    assert kind.advice not in [*others, JobEndedError.advice]
    assert kind.advice.endswith(".")
