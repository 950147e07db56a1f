"""A table becomes DAGs: one per payer, in the table's order."""

import json
import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import Asset, BaseNotifier, Param

from airflow_ephemeral_ec2 import payer_dags
from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.exceptions import TableError
from airflow_ephemeral_ec2.model.run_request import ALL_FIELDS, RunRequest, parse_run_request
from airflow_ephemeral_ec2.model.task_context import find_business_date
from airflow_ephemeral_ec2.notifications.alerts import Alerts

try:
    from airflow.serialization.serialized_objects import DagSerialization as Serialization
except ImportError:  # Airflow 2
    from airflow.serialization.serialized_objects import SerializedDAG as Serialization


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
    assert sorted(dags["payer_acme"].task_ids) == ["_asset", "claims", "member"]
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


# -- the trigger form ------------------------------------------------------------------------


def form_of(dag):
    """Return the form as the server knows it: name -> (default, description, schema)."""
    data = json.loads(json.dumps(Serialization.to_dict(dag)))["dag"]["params"]
    fields = {}
    for name, param in data:
        schema = param["schema"]
        fields[name] = param["default"], param["description"], schema.get("__var", schema)
    return fields


def test_the_trigger_form_has_a_described_field_for_each_thing_to_ask(wide_table):
    fields = form_of(payer_dags(wide_table)["payer_acme"])

    assert set(fields) == set(ALL_FIELDS)
    for name, (_, description, schema) in fields.items():
        assert len(description) > 20, name
        assert schema["title"], name


def test_jobs_can_be_chosen_from_those_of_the_payer(wide_table):
    dags = payer_dags(wide_table)

    assert form_of(dags["payer_acme"])["jobs"][2]["examples"] == ["member", "claims"]
    assert form_of(dags["payer_pea"])["jobs"][2]["examples"] == ["member"]


def test_the_form_as_it_comes_asks_for_nothing(wide_table):
    dag = payer_dags(wide_table)["payer_acme"]

    values = dag.params.validate()

    assert parse_run_request(values, ["member", "claims"]) == RunRequest()
    assert values["business_date"] is None


def test_the_form_of_airflow_2_can_draw_every_default(wide_table):
    """Its template looks for each example ``in`` the default of a list, which None is not."""
    default, _, schema = form_of(payer_dags(wide_table)["payer_acme"])["jobs"]

    assert default == []
    assert "null" in schema["type"]


FILLED = {
    "business_date": "2026-03-01",
    "jobs": ["claims"],
    "instance_types": {"claims": "m7i.xlarge"},
    "priority": 0,
    "ignore_order": True,
    "reason": "late file",
    "dry_run": True,
}


@pytest.mark.parametrize("name", FILLED)
def test_airflow_takes_what_we_take(wide_table, name):
    params = payer_dags(wide_table)["payer_acme"].params

    params[name] = FILLED[name]

    assert params.validate()[name] == FILLED[name]


WRONG = {
    "business_date": "1 March",
    "jobs": "claims",
    "instance_types": ["m7i.xlarge"],
    "priority": 10_001,
    "ignore_order": "yes",
    "reason": "x" * 201,
    "dry_run": 1,
}


@pytest.mark.parametrize("name", WRONG)
def test_airflow_refuses_what_cannot_be_meant_before_a_run_exists(wide_table, name):
    params = payer_dags(wide_table)["payer_acme"].params

    with pytest.raises(Exception, match=name):
        params[name] = WRONG[name]


def test_parameters_of_ones_own_join_the_form(wide_table):
    dags = payer_dags(
        wide_table, params={"ticket": "none", "reason": Param("planned", type="string")}
    )

    assert dags["payer_acme"].params.dump()["ticket"] == "none"
    assert dags["payer_acme"].params.dump()["reason"] == "planned"


def test_filling_in_one_form_leaves_the_others_alone(wide_table):
    dags = payer_dags(wide_table)

    dags["payer_acme"].params["dry_run"] = True

    assert dags["payer_pea"].params["dry_run"] is False


# -- when it runs, and for which date --------------------------------------------------------


def runs_between(dag, first, last):
    """List the moments of the runs that a backfill of these dates makes."""
    server = Serialization.from_dict(Serialization.to_dict(dag))
    found = server.iter_dagrun_infos_between(pendulum.instance(first), pendulum.instance(last))
    return [info.logical_date for info in found]


def dates_of(dag, first, last):
    return [
        find_business_date(
            None, {"dag": dag, "dag_run": SimpleNamespace(logical_date=moment, partition_key=None)}
        )
        for moment in runs_between(dag, first, last)
    ]


def test_a_backfill_makes_one_run_a_day_for_the_date_of_that_day(wide_table):
    dag = payer_dags(wide_table)["payer_acme"]

    dates = dates_of(dag, datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, 23, tzinfo=UTC))

    assert dag.timetable.can_be_scheduled
    assert dates == ["2026-03-01", "2026-03-02", "2026-03-03"]


def test_cron_is_read_in_the_time_zone_of_the_dags(wide_table):
    start = pendulum.datetime(2024, 1, 1, tz="America/New_York")
    dag = payer_dags(wide_table, start_date=start)["payer_acme"]

    (moment,) = runs_between(
        dag, datetime(2026, 7, 1, 5, tzinfo=UTC), datetime(2026, 7, 1, 23, tzinfo=UTC)
    )

    assert moment == datetime(2026, 7, 1, 6, tzinfo=UTC)


@pytest.mark.parametrize("preset", ["@daily", "@weekly", "@hourly", "@monthly"])
def test_presets_are_cron(wide_table, preset):
    wide_table.write_text(wide_table.read_text().replace("0 2 * * *", preset))
    dag = payer_dags(wide_table)["payer_acme"]

    moments = runs_between(dag, datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))

    assert moments
    assert all(moment - moment.replace(minute=0, second=0) == timedelta(0) for moment in moments)


def next_run(dag):
    """What the scheduler finds when it looks for the next run; None: there is none."""
    server = Serialization.from_dict(Serialization.to_dict(dag))
    restriction = server._time_restriction
    return server.timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction
    )


def set_schedule(table, text):
    table.write_text(table.read_text().replace('"0 2 * * *"', f'"{text}"' if text else "null"))


ON_REQUEST = ["", "asset:s3://data/acme", "asset:s3://data/acme | s3://data/all"]


@pytest.mark.parametrize("text", ON_REQUEST)
@pytest.mark.parametrize(
    "more", [{}, {"catchup": True, "end_date": datetime(2027, 1, 1, tzinfo=UTC)}]
)
def test_a_payer_without_cron_is_never_started_by_the_clock(wide_table, text, more):
    set_schedule(wide_table, text)
    dag = payer_dags(wide_table, **more)["payer_acme"]

    assert next_run(dag) is None


@pytest.mark.parametrize("text", ON_REQUEST)
def test_a_payer_without_cron_is_backfilled_a_run_for_each_day(wide_table, text):
    set_schedule(wide_table, text)
    start = pendulum.datetime(2024, 1, 1, tz="America/New_York")
    dag = payer_dags(wide_table, start_date=start)["payer_acme"]

    first, last = datetime(2026, 3, 7, 12, tzinfo=UTC), datetime(2026, 3, 10, 12, tzinfo=UTC)
    server = Serialization.from_dict(Serialization.to_dict(dag))

    assert server.timetable.periodic
    # The clocks go forward on the 8th.
    assert runs_between(dag, first, last) == [
        datetime(2026, 3, 8, 5, tzinfo=UTC),
        datetime(2026, 3, 9, 4, tzinfo=UTC),
        datetime(2026, 3, 10, 4, tzinfo=UTC),
    ]
    assert dates_of(dag, first, last) == ["2026-03-08", "2026-03-09", "2026-03-10"]


@pytest.mark.parametrize("text", ON_REQUEST)
def test_without_daily_backfills_only_airflows_own_schedules_are_used(wide_table, text):
    set_schedule(wide_table, text)
    dag = payer_dags(wide_table, daily_backfills=False)["payer_acme"]
    server = Serialization.from_dict(Serialization.to_dict(dag))

    assert not server.timetable.periodic
    assert type(server.timetable).__module__.startswith("airflow.")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("asset:s3://data/acme", "AssetAll"),
        ("asset:s3://data/acme & s3://data/all", "AssetAll"),
        ("asset:s3://data/acme | s3://data/all", "AssetAny"),
    ],
)
def test_a_payer_can_be_started_by_assets(wide_table, text, kind):
    wide_table.write_text(wide_table.read_text().replace("0 2 * * *", text))
    dag = payer_dags(wide_table)["payer_acme"]

    timetable = dag.timetable
    condition = getattr(timetable, "asset_condition", None) or timetable.dataset_condition

    assert type(condition).__name__.replace("Dataset", "Asset") == kind
    assert {one.uri for one in condition.objects} == {
        uri for uri in ("s3://data/acme", "s3://data/all") if uri in text
    }
    Serialization.to_dict(dag)


# -- which assets it updates -----------------------------------------------------------------


def uris(task):
    outlets = task.partial_kwargs["outlets"] if hasattr(task, "partial_kwargs") else task.outlets
    return [asset.uri for asset in outlets]


def rewrite(table, jobs, payer="{}"):
    head, _, _ = table.read_text().partition("jobs:\n")
    table.write_text(f"{head}jobs:\n{jobs}payers:\n  acme: {payer}\n")


CHAIN = """\
  member: {instance_types: [m7i.large], command: [a]}
  claims: {instance_types: [m7i.large], command: [a], depends_on: [member]}
"""
FORK = CHAIN + "  report: {instance_types: [m7i.large], command: [a], depends_on: [member]}\n"


def test_the_last_job_of_a_chain_updates_the_payers_asset(table):
    rewrite(table, CHAIN)
    dag = payer_dags(table)["payer_acme"]

    assert sorted(dag.task_ids) == ["claims", "member"]
    assert uris(dag.get_task("claims")) == ["ephemeral-ec2://payer/acme"]
    assert uris(dag.get_task("member")) == []


@pytest.mark.parametrize("rule", ["none_failed_min_one_success"])
def test_after_several_last_jobs_a_task_of_its_own_updates_it_once(table, rule):
    rewrite(table, FORK)
    dag = payer_dags(table)["payer_acme"]
    task = dag.get_task("_asset")

    assert uris(task) == ["ephemeral-ec2://payer/acme"]
    assert task.upstream_task_ids == {"claims", "report"}
    assert task.trigger_rule == rule
    assert [uris(dag.get_task(job)) for job in ("member", "claims", "report")] == [[], [], []]


def test_parts_of_an_array_do_not_each_update_it(wide_table):
    dag = payer_dags(wide_table)["payer_acme"]

    assert uris(dag.get_task("claims")) == []
    assert dag.get_task("_asset").upstream_task_ids == {"claims"}


def test_each_job_can_have_an_asset(wide_table):
    dag = payer_dags(wide_table, assets="job")["payer_acme"]

    assert uris(dag.get_task("member")) == ["ephemeral-ec2://payer/acme/member"]
    assert uris(dag.get_task("_asset_claims")) == ["ephemeral-ec2://payer/acme/claims"]
    assert "_asset" not in dag.task_ids


def test_no_assets_on_request(wide_table):
    dag = payer_dags(wide_table, assets=None)["payer_acme"]

    assert sorted(dag.task_ids) == ["claims", "member"]
    assert uris(dag.get_task("member")) == []


def test_another_kind_of_asset_is_refused(wide_table):
    with pytest.raises(ValueError, match=r"payer_dags\(assets='jobs'\): must be 'payer', 'job' or"):
        payer_dags(wide_table, assets="jobs")


def test_a_consumer_finds_the_asset_by_its_uri_alone(table):
    rewrite(table, CHAIN)
    (outlet,) = payer_dags(table)["payer_acme"].get_task("claims").outlets

    assert outlet == Asset("ephemeral-ec2://payer/acme")


# -- parsing ---------------------------------------------------------------------------------


def test_a_task_run_builds_only_its_own_dag(wide_table, monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "eu_pea")

    assert list(payer_dags(wide_table, dag_id="eu_{payer}")) == ["eu_pea"]


def test_a_task_run_of_another_file_builds_none(wide_table, monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "somebody_elses")

    assert payer_dags(wide_table) == {}


def test_the_same_version_of_the_table_is_not_parsed_again_for_the_task(wide_table, deployment):
    from airflow_ephemeral_ec2.hooks.table_source import read_table  # noqa: PLC0415

    os.utime(wide_table, (1_000_000_000, 1_000_000_000))
    os.utime(wide_table.with_name("payers.lock.json"), (1_000_000_000, 1_000_000_000))
    payer_dags(wide_table)

    first = read_table(str(wide_table), lambda: None)

    assert read_table(str(wide_table), lambda: None) is first
    assert first.sha256 == load_table(wide_table).sha256


def test_the_order_of_the_scheduler_is_that_of_the_table(table):
    jobs = CHAIN.replace("command: [a]}", "command: [a], priority: 900}", 1)
    rewrite(table, jobs)
    dag = payer_dags(table)["payer_acme"]
    server = Serialization.from_dict(Serialization.to_dict(dag))

    found = {name: server.get_task(name) for name in ("member", "claims")}

    assert {n: t.priority_weight for n, t in found.items()} == {"member": 900, "claims": 500}
    for task in found.values():
        rule = getattr(task.weight_rule, "value", task.weight_rule)
        assert "absolute" in str(rule).lower()


def test_jobs_of_the_factory_run_whatever_was_left_out_before_them(wide_table):
    dag = payer_dags(wide_table)["payer_acme"]

    assert dag.get_task("member").trigger_rule == "none_failed"
    assert dag.get_task("claims").partial_kwargs["trigger_rule"] == "none_failed"


def test_alerts_reach_every_task_of_every_payer(wide_table):
    notifier = BaseNotifier()

    dags = payer_dags(wide_table, alerts=Alerts(failed=notifier, no_capacity=notifier))

    tasks = [task for dag in dags.values() for task in dag.tasks]
    assert len(tasks) == 4
    for task in tasks:
        on_failure = getattr(task, "partial_kwargs", vars(task))["on_failure_callback"]
        on_retry = getattr(task, "partial_kwargs", vars(task))["on_retry_callback"]
        assert [alert.event for alert in on_failure] == ["failed", "no_capacity"]
        assert [alert.event for alert in on_retry] == ["no_capacity"]
        # Airflow 2 copies what a mapped task is made of.
        assert {type(alert.notifier) for alert in (*on_failure, *on_retry)} == {BaseNotifier}
