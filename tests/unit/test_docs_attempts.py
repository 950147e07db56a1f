"""The page of attempts has the rows that the system tests prove, and no other."""

from pathlib import Path

from tests.system.attempt_cases import CASES, table_rows

PAGE = Path(__file__).parents[2] / "docs" / "attempts.md"


def test_the_table_of_attempts_is_the_list_of_the_tests():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = lines.index("|---|---|---|---|") + 1

    assert lines[first : first + len(CASES)] == list(table_rows())
    assert not lines[first + len(CASES)].startswith("|")
