"""The generated schema and docs page."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from airflow_ephemeral_ec2.config_table.cells import SETTINGS
from airflow_ephemeral_ec2.config_table.schema import (
    docs_table,
    find_stale,
    json_schema,
    main,
)
from airflow_ephemeral_ec2.model.spec import Limits

ROOT = Path(__file__).parents[3]


def accepts(value):
    return jsonschema.Draft202012Validator(json_schema()).is_valid(value)


def test_the_docs_say_what_the_models_say():
    assert find_stale(ROOT / "docs") == [], (
        "run: python -m airflow_ephemeral_ec2.config_table.schema --write docs"
    )


def test_a_stale_page_is_noticed_and_renewed(tmp_path):
    page = tmp_path / "config-table.md"
    page.write_text(
        (ROOT / "docs" / "config-table.md").read_text().replace("| `priority` |", "| `x` |")
    )

    assert main(["--check", str(tmp_path)]) == 1
    assert main(["--write", str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    assert page.read_text() == (ROOT / "docs" / "config-table.md").read_text()


def test_every_setting_is_explained():
    rows = [line.split("|") for line in docs_table().splitlines() if line.startswith("| `")]

    assert {row[1].strip(" `") for row in rows} == {
        *SETTINGS,
        *(f"limits.{name}" for name in Limits.model_fields),
    }
    assert all(cell.strip() for row in rows for cell in row[1:-1])


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_schema_takes_a_table_as_users_write_it(right_text):
    assert accepts(yaml.safe_load(right_text))


def test_the_schema_takes_the_tables_in_dags():
    for path in (ROOT / "dags").glob("*.yaml"):
        assert accepts(yaml.safe_load(path.read_text())), path.name


def test_the_examples_in_the_docs_are_right():
    page = (ROOT / "docs" / "config-table.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]

    assert accepts(yaml.safe_load(example))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_runtime: 1h", "max_runtime: 60"),
        ("priority: 900", "prioritty: 900"),
        ("priority: 900", "priority: 90000"),
        ("priority: 900", "schedule: '@daily'"),
        ("[m7i.2xlarge]", "m7i.2xlarge"),
        ("limits: {vcpus: 96}", "limits: {vcpu: 96}"),
        ("version: 1", "version: 2"),
        ('"4711"', "4711"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old, new, right_text):
    assert old in right_text
    assert not accepts(yaml.safe_load(right_text.replace(old, new, 1)))
