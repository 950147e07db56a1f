"""The trigger form as Airflow 2's own template draws it; the one of Airflow 3 is drawn in the browser."""

import re
from importlib.util import find_spec
from pathlib import Path

import jinja2
import pytest

from airflow_ephemeral_ec2 import payer_dags

pytestmark = pytest.mark.skipif(
    find_spec("airflow.www") is None, reason="Airflow 3 has no template"
)


@pytest.fixture
def draw(table):
    import airflow.www  # noqa: PLC0415 - Airflow 2 only

    template = Path(airflow.www.__file__).with_name("templates") / "airflow" / "trigger.html"
    text = template.read_text(encoding="utf-8")
    macro = re.search(
        r"{% macro form_element.*?{%- endmacro %}|{% macro form_element.*?{% endmacro %}",
        text,
        re.DOTALL,
    )
    environment = jinja2.Environment(autoescape=True)
    form_element = environment.from_string(macro.group()).module.form_element
    params = payer_dags(table)["payer_acme"].params

    return lambda name: form_element(name, params.get_param(name).dump())


@pytest.mark.parametrize(
    ("name", "title", "element"),
    [
        ("business_date", "Business date", 'type="date"'),
        ("jobs", "Jobs to run", '<option value="claims"'),
        ("dry_run", "Dry run", 'type="checkbox"'),
        ("instance_types", "Instance types", "<textarea"),
        ("priority", "Priority", 'type="number"'),
        ("ignore_order", "Ignore order across runs", 'type="checkbox"'),
        ("reason", "Reason", 'type="text"'),
    ],
)
def test_airflow_2_draws_each_field_with_its_title_and_none_is_required(draw, name, title, element):
    drawn = draw(name)

    assert title in drawn
    assert element in drawn
    assert "required" not in drawn
    assert "help-block" in drawn
