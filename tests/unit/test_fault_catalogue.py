"""The page of faults says what the tests show, and the catalogue is covered."""

from pathlib import Path

from tests.catalogue.page import PAGE, covered, render
from tests.catalogue.rows import NOT_TESTED, read_rows

TESTS = Path(__file__).parents[1]


def test_every_row_has_a_test_or_a_reason_and_none_has_both():
    with_test, rows = set(covered(TESTS)), set(read_rows())

    assert len(rows) == 121
    assert with_test <= rows
    assert rows - with_test == set(NOT_TESTED)
    assert all(NOT_TESTED.values())


def test_at_least_a_hundred_rows_have_a_test():
    assert len(set(covered(TESTS)) & set(read_rows())) >= 100


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == render(TESTS), "run: python -m tests.catalogue"
