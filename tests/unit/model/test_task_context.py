"""The business date of a run, wherever Airflow keeps it."""

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from airflow_ephemeral_ec2.exceptions import ConfigurationError
from airflow_ephemeral_ec2.model.task_context import (
    find_business_date,
    find_epoch,
    is_backfill,
    is_new_in_backfill,
    resolve_table,
)

LATE = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def context(params=None, dag=None, **run):
    fields = {"logical_date": None, "partition_key": None, "run_after": None} | run
    return {"dag_run": SimpleNamespace(**fields), "params": params or {}, "dag": dag}


@pytest.mark.parametrize(
    ("given", "where", "found"),
    [
        pytest.param("2026-01-01", {"params": {"business_date": "2026-02-02"}}, "2026-01-01", id="argument"),
        pytest.param(None, {"params": {"business_date": "2026-02-02"}, "logical_date": LATE}, "2026-02-02", id="params"),
        pytest.param(None, {"partition_key": "acme|2026-04-04", "logical_date": LATE}, "2026-04-04", id="partition"),
        pytest.param(None, {"logical_date": LATE, "run_after": None}, "2026-03-01", id="logical date"),
        pytest.param(None, {"run_after": LATE}, "2026-03-01", id="run_after"),
    ],
)  # fmt: skip
def test_the_first_place_that_knows_it_counts(given, where, found):
    assert find_business_date(given, context(**where)) == found


def test_the_dags_time_zone_decides_which_day_it_is():
    dag = SimpleNamespace(timezone=timezone(timedelta(hours=2)))

    assert find_business_date(None, context(dag=dag, logical_date=LATE)) == "2026-03-02"


def test_a_run_without_any_date_says_what_to_do():
    with pytest.raises(ConfigurationError, match="trigger it with the parameter business_date"):
        find_business_date(None, context())


def test_a_date_that_is_none_is_named():
    with pytest.raises(ConfigurationError, match=r"'2026-02-30': not a date"):
        find_business_date("2026-02-30", context())


def test_one_date_for_all_runs_of_a_backfill_is_refused():
    params = {"business_date": "2026-03-05"}
    started = context(params, logical_date=LATE, run_type="backfill", run_id="scheduled__1")

    with pytest.raises(
        ConfigurationError, match=r"'2026-03-05': in a backfill each run is for its"
    ):
        find_business_date(None, started)
    assert find_business_date("2026-03-01", started) == "2026-03-01"
    started["params"] = {"business_date": None}
    assert find_business_date(None, started) == "2026-03-01"


def test_clearing_and_rerunning_change_the_epoch_and_retrying_does_not():
    def epoch(max_tries, started, retries=2):
        ti = SimpleNamespace(max_tries=max_tries, try_number=1)
        run = SimpleNamespace(start_date=started)
        task = SimpleNamespace(retries=retries)
        return find_epoch({"ti": ti, "dag_run": run, "task": task})

    first = epoch(2, LATE)

    assert epoch(2, LATE) == first
    assert epoch(3, LATE) != first
    # Cleared after its retries were edited from 2 to 1: 1 try + 1 retry = 2, as before.
    assert epoch(2, LATE, retries=1) != first
    assert epoch(2, LATE + timedelta(seconds=1)) != first


def test_a_relative_table_lies_beside_the_dags_file():
    dag = SimpleNamespace(fileloc="/opt/dags/payers/dag.py")

    assert resolve_table("payers.yaml", {"dag": dag}) == "/opt/dags/payers/payers.yaml"
    assert resolve_table("/etc/payers.yaml", {"dag": dag}) == "/etc/payers.yaml"
    assert resolve_table("s3://b/payers.yaml", {"dag": dag}) == "s3://b/payers.yaml"


@pytest.mark.parametrize(
    ("run_type", "run_id", "expected"),
    [
        ("backfill", "backfill__2026-03-01T02:00:00+00:00", True),
        (SimpleNamespace(value="backfill"), "backfill__2026-03-01T02:00:00+00:00", True),
        # What a backfill of Airflow 3 reprocesses keeps its id.
        (SimpleNamespace(value="backfill"), "scheduled__2026-03-01T02:00:00+00:00", True),
        ("scheduled", "scheduled__2026-03-01T02:00:00+00:00", False),
        (SimpleNamespace(value="manual"), "manual__1", False),
        (None, "backfill__2026-03-01", True),
        (None, "manual__1", False),
    ],
)
def test_a_backfill_is_known_by_its_type_or_its_id(run_type, run_id, expected):
    run = SimpleNamespace(run_type=run_type, run_id=run_id)

    assert is_backfill({"dag_run": run, "ti": SimpleNamespace(run_id=run_id)}) is expected


@pytest.mark.parametrize(
    ("run_id", "max_tries", "expected"),
    [
        ("backfill__2026-03-01T00:00:00+00:00", 2, True),
        # Cleared, or reprocessed by another backfill: somebody wants it again.
        ("backfill__2026-03-01T00:00:00+00:00", 3, False),
        ("scheduled__2026-03-01T02:00:00+00:00", 2, False),
        ("manual__1", 2, False),
    ],
)
def test_a_new_run_of_a_backfill_is_known_until_it_is_cleared(run_id, max_tries, expected):
    ti, task = SimpleNamespace(max_tries=max_tries), SimpleNamespace(retries=2)
    found = {"dag_run": SimpleNamespace(run_id=run_id), "ti": ti, "task": task}

    assert is_new_in_backfill(found) is expected


@pytest.mark.parametrize("key", ["triggering_asset_events", "triggering_dataset_events"])
def test_a_run_that_an_asset_started_is_for_the_date_of_its_update(key):
    dated = SimpleNamespace(extra={"business_date": "2026-01-31", "payer": "acme"})
    plain = SimpleNamespace(extra={})
    started = context(logical_date=LATE) | {key: {"a": [plain, dated], "b": [dated]}}

    assert find_business_date(None, started) == "2026-01-31"
    assert find_business_date("2026-01-01", started) == "2026-01-01"
    assert find_business_date(None, started | {key: {"a": [plain]}}) == "2026-03-01"


def test_updates_for_several_dates_are_not_one_run():
    events = [SimpleNamespace(extra={"business_date": f"2026-01-0{day}"}) for day in (2, 1)]

    with pytest.raises(ConfigurationError, match="for 2026-01-01, 2026-01-02; trigger one run"):
        find_business_date(None, context() | {"triggering_asset_events": {"a": events}})
