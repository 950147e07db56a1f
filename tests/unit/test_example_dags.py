"""The example DAG files: they parse, and their edges are the table's order."""

import importlib.util
from pathlib import Path

from airflow_ephemeral_ec2.config_table import load_table

DAGS = Path(__file__).parents[2] / "dags"


def _load(name):
    """Run a DAG file as Airflow does and return its globals."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", DAGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def _dags(found):
    return {name: dag for name, dag in found.items() if hasattr(dag, "task_dict")}


def test_the_payers_dag_file_is_three_lines_of_code():
    text = (DAGS / "payer_pipelines.py").read_text(encoding="utf-8")

    assert len([line for line in text.splitlines() if line.strip()]) == 3


def test_every_payer_of_the_table_has_a_dag():
    dags = _dags(_load("payer_pipelines"))

    assert set(dags) == {f"payer_{payer}" for payer in load_table(DAGS / "payers.yaml").payers}


def test_the_edges_are_the_order_of_the_table():
    table = load_table(DAGS / "payers.yaml")
    dags = _dags(_load("payer_pipelines"))

    for payer in table.payers:
        tasks = dags[f"payer_{payer}"].task_dict
        found = {name: set(task.upstream_task_ids) for name, task in tasks.items()}
        assert found == {spec.job: set(spec.depends_on) for spec in table.jobs(payer)}


def test_a_payers_jobs_are_member_eligibility_claims_and_downstream():
    dags = _dags(_load("payer_pipelines"))

    assert set(dags["payer_acme"].task_dict) == {"member", "eligibility", "claims", "downstream"}


def test_the_sensor_example_launches_without_waiting_and_waits_with_the_sensor():
    dag = _load("example_sensor")["dag"]

    launch, wait = dag.task_dict["launch"], dag.task_dict["wait"]

    assert launch.wait_for_completion is False
    assert wait.upstream_task_ids == {"launch"}


def test_the_mapped_example_has_one_task_for_each_part_of_its_row():
    parts = load_table(DAGS / "examples.yaml").find("zeta", "parts").array_size
    dag = _load("example_mapped")["dag"]

    task = dag.task_dict["parts"]

    assert task.partial_kwargs["job"] == "parts"
    assert len(task.expand_input.value["array_index"]) == parts
