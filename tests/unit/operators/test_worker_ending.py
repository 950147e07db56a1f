"""Which successes a worker ends, because something would be lost otherwise, and which need none."""

import re
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    Asset,
    TaskDeferred,
    get_listener_manager,
    hookimpl,
)

from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

PAGE = Path(__file__).parents[3] / "docs" / "how-it-works.md"
SECTION = (
    PAGE.read_text(encoding="utf-8")
    .partition("## Which successes need a worker")[2]
    .partition("\n## ")[0]
)
CONDITIONS = set(re.findall(r"^\| `([^`]+)`", SECTION, re.MULTILINE))
"""As the page names them."""


class WithPostExecute(EphemeralEC2Operator):
    """Somebody's own operator that does something after each success."""

    def post_execute(self, context, result=None):
        pass


class WithComplete(EphemeralEC2Operator):
    """Somebody's own operator that makes something else of the event."""

    def execute_complete(self, context, event=None):
        return super().execute_complete(context, event)


class WithExecute(EphemeralEC2Operator):
    """Somebody's own operator that does something before the machine is asked for."""

    def execute(self, context):
        return super().execute(context)


class SuccessListener:
    """A plugin's listener, as OpenLineage has one."""

    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        pass


class StartListener:
    """A plugin's listener that hears of starts only."""

    @hookimpl
    def on_task_instance_running(self, previous_state, task_instance):
        pass


@pytest.fixture
def make_operator(table):
    def make(kind=EphemeralEC2Operator, **changes):
        arguments = {"payer": "acme", "job": "claims", "config_table": str(table)} | changes
        return kind(task_id="claims", dag=DAG("payer_acme", schedule=None), **arguments)

    return make


@pytest.fixture
def trigger_of(make_context, deployment):
    """Run an operator until it defers."""

    def trigger_of(operator):
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(make_context())
        return deferred.value.trigger

    return trigger_of


@pytest.fixture
def listen():
    """Register a plugin's listener."""
    manager, registered = get_listener_manager(), []

    def listen(listener):
        manager.add_listener(listener)
        registered.append(listener)

    yield listen
    for listener in registered:
        manager.pm.unregister(listener)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wait_for_completion": False}, "wait_for_completion=False"),
        ({"on_success_callback": lambda context: None}, "on_success_callback"),
        ({"outlets": [Asset("s3://somewhere/else")]}, "outlets"),
        ({"post_execute": lambda context, result: None}, "post_execute"),
        ({"kind": WithPostExecute}, "post_execute"),
        ({"kind": WithComplete}, "execute_complete"),
        ({"multiple_outputs": True}, "multiple_outputs"),
        ({"map_index_template": "{{ task.payer }}"}, "map_index_template"),
    ],
)
def test_a_worker_ends_the_task_when_something_would_be_lost(
    make_operator, trigger_of, changes, reason
):
    assert trigger_of(make_operator(**changes)).end_in_triggerer is False
    assert reason in CONDITIONS


def test_a_worker_ends_a_task_over_whose_result_others_are_mapped(make_operator, trigger_of, table):
    operator = make_operator()
    EphemeralEC2Operator.partial(
        task_id="each", dag=operator.dag, payer="acme", job="member", config_table=str(table)
    ).expand(array_index=operator.output)

    assert trigger_of(operator).end_in_triggerer is False
    assert "expand" in CONDITIONS


def test_a_task_behind_which_others_run_unmapped_needs_no_worker(make_operator, trigger_of, table):
    operator = make_operator()
    operator >> EphemeralEC2Operator(
        task_id="next", dag=operator.dag, payer="acme", job="member", config_table=str(table)
    )

    assert trigger_of(operator).end_in_triggerer is True


def test_a_worker_copies_the_log_of_a_success_when_the_row_wants_it(
    make_operator, trigger_of, table
):
    table.write_text(table.read_text().replace("depends_on: [member]", "log_to_airflow: all"))

    assert trigger_of(make_operator()).end_in_triggerer is False
    assert "log_to_airflow: all" in CONDITIONS


@pytest.mark.parametrize("backend", ["my.company.VaultXCom", "my.company.BaseXCom"])
def test_a_worker_ends_the_task_when_xcoms_go_elsewhere(
    make_operator, trigger_of, monkeypatch, backend
):
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", backend)

    assert trigger_of(make_operator()).end_in_triggerer is False
    assert "xcom_backend" in CONDITIONS


@pytest.mark.parametrize(
    ("listener", "ends_in_triggerer"), [(SuccessListener(), False), (StartListener(), True)]
)
def test_a_worker_ends_the_task_when_a_plugin_listens_for_successes(
    make_operator, trigger_of, listen, listener, ends_in_triggerer
):
    listen(listener)

    assert trigger_of(make_operator()).end_in_triggerer is ends_in_triggerer
    assert "listener" in CONDITIONS


@pytest.mark.parametrize("pushes", [True, False])
def test_a_task_without_xcom_needs_no_worker_and_has_no_xcom(make_operator, trigger_of, pushes):
    trigger = trigger_of(make_operator(do_xcom_push=pushes))

    assert (trigger.end_in_triggerer, trigger.push_result) == (True, pushes)


def test_an_operator_that_does_more_before_the_wait_needs_no_worker(make_operator, trigger_of):
    assert trigger_of(make_operator(WithExecute)).end_in_triggerer is True
