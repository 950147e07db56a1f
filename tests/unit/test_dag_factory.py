"""A table becomes DAGs: one per payer, in the table's order."""

import pytest

from airflow_ephemeral_ec2 import payer_dags
from airflow_ephemeral_ec2.exceptions import TableError


@pytest.fixture
def wide_table(table):
    table.write_text(
        table.read_text().replace(
            "  acme: {}\n",
            '  acme: {schedule: "0 2 * * *", jobs: {claims: {array_size: 3, infra_retries: 1, job_retries: 3}}}\n'
            "  pea: {jobs: {claims: {enabled: false}}}\n",
        )
    )
    return table


def test_each_payer_gets_a_dag_of_its_enabled_jobs(wide_table):
    dags = payer_dags(wide_table)

    assert sorted(dags) == ["payer_acme", "payer_pea"]
    assert sorted(dags["payer_acme"].task_ids) == ["claims", "member"]
    assert dags["payer_pea"].task_ids == ["member"]


def test_depends_on_gives_the_edges(wide_table):
    dag = payer_dags(wide_table)["payer_acme"]

    assert dag.get_task("claims").upstream_task_ids == {"member"}
    assert dag.get_task("member").upstream_task_ids == set()


def test_retries_are_the_sum_of_both_budgets_and_order_is_absolute(wide_table):
    task = payer_dags(wide_table)["payer_acme"].get_task("claims")

    assert task.retries == 4
    assert task.priority_weight == 500
    assert "absolute" in str(task.weight_rule).lower()


def test_an_array_is_one_mapped_task(wide_table):
    task = payer_dags(wide_table)["payer_acme"].get_task("claims")

    assert "array_index" not in task.partial_kwargs
    assert list(task.expand_input.value["array_index"]) == [0, 1, 2]


def test_the_trigger_form_asks_for_the_business_date(wide_table):
    dag = payer_dags(wide_table)["payer_acme"]

    assert dag.params["business_date"] is None


def test_names_and_arguments_of_the_dags_can_be_chosen(wide_table):
    dags = payer_dags(wide_table, dag_id="eu_{payer}", max_active_runs=1, deferrable=False)

    assert dags["eu_acme"].max_active_runs == 1
    assert dags["eu_acme"].get_task("member").deferrable is False


def test_a_wrong_table_shows_every_error_as_the_import_error(wide_table):
    text = wide_table.read_text().replace(
        "depends_on: [member]", "depends_on: [membr], max_runtime: 30"
    )
    wide_table.write_text(text)

    with pytest.raises(TableError) as error:
        payer_dags(wide_table)

    assert "did you mean" in str(error.value)
    assert "no unit" in str(error.value)


def test_parsing_calls_no_aws_and_needs_no_settings(wide_table, monkeypatch):
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", None)

    assert payer_dags(wide_table)
