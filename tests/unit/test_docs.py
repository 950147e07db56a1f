"""What the documentation shows must be so."""

import re
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.config_table import check_table_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readmes_table_is_a_valid_one_of_twelve_lines():
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    found = check_table_text(text, "payers.yaml")

    assert found.problems == ()
    assert found.table.payers == ("acme", "pea")
    assert len(text.splitlines()) == 12


def test_the_readme_fits_in_one_reading():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]*))?\)", page.read_text())

    for path, anchor in targets:
        target = page.parent / path
        assert target.exists(), f"{page.name}: {path}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name}: {path}#{anchor}"


def test_the_dag_file_is_three_lines():
    lines = (ROOT / "dags" / "payer_pipelines.py").read_text().splitlines()

    assert len([line for line in lines if line.strip()]) == 3
