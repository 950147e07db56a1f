"""The page of laws names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "admission.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(test_\w+)`(?: in `(test_\w+\.py)`)?", PAGE)
LAWS = "test_admission_laws.py"


def _tests_in(name: str) -> set[str]:
    trees = [ast.parse(p.read_text(encoding="utf-8")) for p in (ROOT / "tests").rglob(name)]
    nodes = [node for tree in trees for node in tree.body]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("test", "file"), NAMED, ids=lambda found: found or "laws")
def test_each_law_names_a_test_that_exists(test, file):
    assert test in _tests_in(file or LAWS)


def test_each_line_of_a_table_names_a_test():
    laws = [line for line in PAGE.splitlines() if line.startswith("| ") and "| law |" not in line]
    laws = [line for line in laws if line != "| law | test |"]

    assert len(laws) == len(NAMED)
    assert len(PAGE.splitlines()) < 80
