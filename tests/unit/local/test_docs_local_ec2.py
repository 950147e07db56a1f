"""docs/local-ec2.md names every fault, in the words of the code, and its example is one."""

import re
from pathlib import Path

from airflow_ephemeral_ec2.local.fault_kinds import KINDS, load_faults
from airflow_ephemeral_ec2.local.harms import HOWS

PAGE = (Path(__file__).parents[3] / "docs" / "local-ec2.md").read_text(encoding="utf-8")


def table_under(heading: str) -> dict[str, list[str]]:
    """Return first column -> the other columns of the table with this heading row."""
    rows = PAGE.partition(heading)[2].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return {first.strip("`"): others for first, *others in cells}


def test_the_table_of_kinds_is_that_of_the_code():
    found = table_under("| kind | its own keys | what happens |")

    assert {kind: text for kind, (_, text) in found.items()} == {
        kind: text for kind, (_, _, text) in KINDS.items()
    }
    for kind, (keys, _) in found.items():
        named = set(re.findall(r"`([a-z_]+)`", keys))
        assert named == set(KINDS[kind][1]), kind


def test_the_table_of_harms_is_that_of_the_code():
    found = table_under("| how | what happens |")

    assert {how: text for how, (text,) in found.items()} == dict(HOWS)


def test_the_example_of_the_page_can_be_loaded(tmp_path):
    example = re.search(r"```yaml\n(- \{kind.*?)```", PAGE, re.DOTALL).group(1)
    (tmp_path / "faults.yaml").write_text(example)

    plan = load_faults(tmp_path / "faults.yaml")

    assert (len(plan.faults), len(plan.harms)) == (3, 1)
    assert plan.limits is not None
