"""A payer whose runs are started by files has a second DAG that takes them."""

import sys

import pytest

from airflow_ephemeral_ec2 import payer_dags
from airflow_ephemeral_ec2.dag_factory.files import has_message_queues

QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/acme-files"


@pytest.fixture
def files_table(table):
    setting = f'{{files: "s3://landing/acme/*.csv", files_queue: "{QUEUE}"}}'
    text = table.read_text().replace("  acme: {}\n", f"  acme: {setting}\n  pea: {{}}\n")
    table.write_text(text)
    return table


def test_only_a_payer_with_files_has_the_second_dag(files_table):
    assert sorted(payer_dags(files_table)) == ["payer_acme", "payer_acme_files", "payer_pea"]


def test_it_takes_files_and_starts_the_payers_dag(files_table):
    dags = payer_dags(files_table)
    take, start = (
        dags["payer_acme_files"].get_task("take"),
        dags["payer_acme_files"].get_task("start"),
    )

    assert (take.payer, take.files, take.queue_url) == ("acme", "s3://landing/acme/*.csv", QUEUE)
    assert take.downstream_task_ids == {"start"}
    assert start.partial_kwargs["trigger_dag_id"] == "payer_acme"
    assert start.partial_kwargs["skip_when_already_exists"] is True


def test_the_payers_dag_itself_runs_when_it_is_triggered_one_run_at_a_time(files_table):
    dags = payer_dags(files_table)

    assert not dags["payer_acme"].timetable.can_be_scheduled
    assert dags["payer_acme"].max_active_runs == 1
    assert dags["payer_pea"].max_active_runs == 4
    assert payer_dags(files_table, max_active_runs=3)["payer_acme"].max_active_runs == 3


@pytest.mark.skipif(not has_message_queues(), reason="needs the extra files, of Airflow 3 only")
def test_where_airflow_can_watch_a_queue_a_watcher_starts_it_and_deletes_nothing(files_table):
    [asset] = payer_dags(files_table)["payer_acme_files"].schedule
    [watcher] = asset.watchers
    name, arguments = watcher.trigger.serialize()

    assert name == "airflow.providers.amazon.aws.triggers.sqs.SqsSensorTrigger"
    assert (arguments["sqs_queue"], arguments["region_name"]) == (QUEUE, "us-east-1")
    assert arguments["delete_message_on_reception"] is False


def test_elsewhere_one_run_of_it_always_waits(files_table, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiobotocore", None)  # as if it were not installed
    dag = payer_dags(files_table)["payer_acme_files"]

    assert type(dag.timetable).__name__ == "ContinuousTimetable"
    assert dag.max_active_runs == 1
    assert dag.get_task("take").timeout > 9 * 365 * 86_400
