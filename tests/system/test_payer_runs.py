"""Payer DAGs as people run them: backfills, the form, assets, alerts; on real Airflows."""
# ruff: noqa: T201 - says where the logs are

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.system.airflow_versions import VERSIONS, AirflowThree
from tests.system.alert_stage import CROWD, SECRET, begin_alerts, make_orphan, read_job_logs, stages
from tests.system.attempt_evidence import machines_by_job
from tests.system.payer_world import DATES, ENDED, RUNS, start
from tests.system.postgres import Postgres
from tests.system.services import wait_until

pytestmark = pytest.mark.timeout(900)
OTHER = "2026-03-04"
WAITING = "2026-03-05"
"""For this date a job waits from the start for a success of what it depends on."""


@pytest.fixture(scope="module")
def postgres():
    home = Path(tempfile.mkdtemp(prefix="payer-runs-"))
    home.chmod(0o755)
    made = Postgres(home / "postgres")
    try:
        made.start()
        made.folder = home
        yield made
    finally:
        made.stop()


PLAYED = [
    # The form and the assets on Airflow 2.11 take minutes; `make nightly` has the time.
    pytest.param(v, id=v.name, marks=[pytest.mark.nightly] if v.name == "2.11" else [])
    for v in VERSIONS
]


@pytest.fixture(scope="module", params=PLAYED)
def world(request, postgres):
    with contextlib.ExitStack() as stack:
        home = postgres.folder / f"on-{request.param.name}"
        made = start(request.param, home, postgres, stack)
        made.airflow.trigger("payer_cora", "waits", WAITING, jobs=["report"])
        # What takes long and disturbs nobody runs beside the first tests.
        begin_alerts(made.airflow, made.cloud, DATES[0])
        if isinstance(made.airflow, AirflowThree):
            made.begin_backfill("payer_acme", "none")
            made.begin_backfill("payer_bolt", "none")
        yield made
    if request.session.testsfailed:
        print(f"logs: {home}")
    else:
        shutil.rmtree(home)


@pytest.fixture
def three(world):
    if not isinstance(world.airflow, AirflowThree):
        pytest.skip("Airflow 2 has no `airflow backfill create`")
    return world


# -- the trigger form ------------------------------------------------------------------------


def test_a_skip_takes_along_what_depends_on_it_parts_of_an_array_too(world):
    states = world.run("payer_cora", "skips")

    assert set(states.values()) == {"skipped"}
    assert {("member", -1), ("claims", 0), ("claims", 1), ("report", -1)} <= set(states)
    assert [job for job, _ in world.traces("cora")] == ["member"]


def test_chosen_jobs_run_and_the_others_are_skipped(world):
    # Nobody has run what it depends on for this date.
    conf = {"jobs": ["report"], "ignore_order": True, "reason": "its input came by mail"}
    states = world.run("payer_cora", "chosen", DATES[1], **conf)

    assert states.pop(("report", -1)) == "success"
    assert set(states.values()) == {"skipped"}
    assert {key for key in world.traces("cora") if key[1] == DATES[1]} == {("report", DATES[1])}


def test_a_part_that_skips_does_not_skip_the_rest_and_the_asset_starts_who_waits_for_it(world):
    states = world.run("payer_dana", "part")

    assert (states["claims", 0], states["claims", 1]) == ("skipped", "success")
    assert states["report", -1] == "success"
    wait_until(
        lambda: world.counts("echo")[DATES[0]] == (1, 1), 120, "the payer that waits for dana"
    )


def test_a_dry_run_launches_nothing_and_updates_no_asset(world):
    states = world.run("payer_dana", "dry", DATES[2], dry_run=True)

    assert set(states.values()) == {"skipped"}
    assert {date for _, date in world.traces("dana")} == {DATES[0]}
    assert {date for _, date in world.traces("echo")} <= {DATES[0]}


def test_a_wrong_form_fails_before_anything_is_launched(world):
    states = world.run("payer_dana", "wrong", DATES[1], jobs=["reprt"])

    assert states["member", -1] == "failed"
    assert DATES[1] not in {date for _, date in world.traces("dana")}


def test_another_machine_and_priority_are_launched_and_recorded(world):
    conf = {
        "jobs": ["report"],
        "instance_types": {"report": "m7i.xlarge"},
        "priority": 9999,
        "ignore_order": True,
        "reason": "late file",
    }

    world.run("payer_dana", "override", OTHER, **conf)

    (record,) = [one for one in world.launches("dana") if one["business_date"] == OTHER]
    assert [one["instance_type"] for one in record["placements"]] == ["m7i.xlarge"]
    assert (record["spec"]["priority"], record["priority_reason"]) == (9999, "late file")
    assert (record["order_override"], record["is_backfill"]) == ("late file", False)


# -- backfills -------------------------------------------------------------------------------


def test_a_backfill_runs_each_date_once_and_in_order(three):
    """They were begun with Airflow itself."""
    three.await_backfills("payer_acme", "payer_bolt")

    assert three.counts("acme") == dict.fromkeys(DATES, (1, 1))
    assert three.counts("bolt") == {DATES[0]: (1, 1), DATES[1]: (1, 0), DATES[2]: (1, 1)}
    traces = three.traces("acme")
    for date in DATES:
        assert traces["member", date][0][1] <= traces["claims", date][0][0]
    launches = {one["business_date"]: one for one in three.launches("acme")}
    assert all(launches[date]["is_backfill"] for date in DATES)


def test_a_second_backfill_runs_nothing_or_only_what_failed(three):
    three.begin_backfill("payer_acme", "none")
    three.begin_backfill("payer_bolt", "failed")
    three.await_backfills("payer_acme", "payer_bolt")

    assert three.counts("acme") == dict.fromkeys(DATES, (1, 1))
    assert three.counts("bolt") == {DATES[0]: (1, 1), DATES[1]: (2, 1), DATES[2]: (1, 1)}


def test_reprocessing_what_completed_runs_everything_once_more(three):
    three.begin_backfill("payer_acme", "completed")
    three.await_backfills("payer_acme")

    assert three.counts("acme") == dict.fromkeys(DATES, (2, 2))
    records = [one for one in three.launches("acme") if one["business_date"] in DATES]
    assert sorted({one["attempt"] for one in records}) == [1, 2]
    assert all(one["is_backfill"] for one in records)


def test_a_backfill_takes_the_form_too_from_the_command_and_from_the_api(three):
    body = {
        "dag_id": "payer_bolt",
        "from_date": "2026-05-01T00:00:00Z",
        "to_date": "2026-05-02T23:00:00Z",
        "dag_run_conf": {"dry_run": True},
        "reprocess_behavior": "none",
    }
    conf = json.dumps({"jobs": ["member"]})

    three.begin_backfill("payer_acme", "none", "--dag-run-conf", conf, dates=["2026-04-01"])
    three.airflow.client.change("POST", "/api/v2/backfills", body)
    three.await_backfills("payer_acme")
    three.await_runs("payer_bolt")

    assert three.counts("acme", ["2026-04-01"]) == {"2026-04-01": (1, 0)}
    rows = three.airflow.rows(RUNS, "payer_bolt")
    may = [row[2] for row in rows if row[3] is not None and row[3].month == 5]
    assert may == ["backfill", "backfill"]
    assert not [date for _, date in three.traces("bolt") if date.startswith("2026-05")]


def test_a_payer_that_assets_start_is_backfilled_and_nothing_is_done_twice(three):
    """An asset started echo for the first of the dates."""
    wait_until(lambda: three.counts("echo")[DATES[0]] == (1, 1), 120, "the run that dana started")
    three.await_runs("payer_echo")

    three.begin_backfill("payer_echo", "none")
    three.await_backfills("payer_echo")

    assert three.counts("echo") == dict.fromkeys(DATES, (1, 1))


def test_it_is_reprocessed_too_and_who_runs_on_request_is_backfilled(three):
    more = "2026-06-01"
    three.begin_backfill("payer_echo", "completed", dates=DATES[1:])
    three.begin_backfill("payer_dana", "none", dates=[more])
    three.await_backfills("payer_echo", "payer_dana")

    assert three.counts("echo", DATES[1:]) == dict.fromkeys(DATES[1:], (2, 2))
    assert len(three.traces("dana")["report", more]) == 1
    dates = {one["business_date"] for one in three.launches("dana") if one["is_backfill"]}
    assert dates == {more}


# -- what a job waits for --------------------------------------------------------------------


def test_a_waiting_task_shows_what_it_waits_for_as_its_xcom(world):
    """It has waited since Airflow was started: longer than a line is held back."""
    waits = ("payer_cora", "waits", "report")

    wait_until(lambda: world.airflow.states()[waits] == "deferred", 120, "a task that waits")
    wait_until(lambda: world.airflow.xcom(*waits, "state"), 60, "its line")

    assert world.airflow.xcom(*waits, "state") == (
        f"queued: waits for a success of cora/claims {WAITING}: nobody has asked for it yet"
    )
    # The alerts below are about others.
    world.airflow.mark(*waits, "failed")
    wait_until(lambda: world.airflow.run_state(*waits[:2]) in ENDED, 60, "the end of its run")
    wait_until(lambda: not stages(world.cloud, world.engine, "cora"), 60, "the end of its attempt")
    assert ("report", WAITING) not in world.traces("cora")


# -- alerts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(world):
    """What was told of a failed job, of no capacity, of long waits and of an orphan."""
    wait_until(lambda: world.airflow.run_state("payer_fay", "alerts") == "failed", 180, "fay")
    ways = ["launched", "waiting", "waiting"]
    wait_until(lambda: sorted(stages(world.cloud, world.engine).values()) == ways, 180, "gus")
    (record,) = [one for one in world.launches("fay") if one["spec"]["job"] == "bad"]
    orphan = make_orphan(world.cloud, world.engine, record)
    standing = stages(world.cloud, world.engine)
    states = world.run("alerting_reaper", "reap")
    (world.runs / "go").touch()
    assert set(states.values()) == {"success"}
    return {"orphan": orphan, "runs": [job for job in standing if standing[job] == "launched"]}


@pytest.fixture(scope="module")
def mail(world, told):
    """Return {event: {job: payload}}."""
    events = ("failed", "no_capacity", "waiting", "orphan")
    return {event: world.alerts(event) for event in events}


def test_a_failed_job_is_told_with_its_exit_code_by_the_worker(mail):
    payload = mail["failed"]["bad"]

    assert sorted(mail["failed"]) == ["bad", "nowhere"]
    assert (payload["payer"], payload["business_date"]) == ("fay", DATES[0])
    assert (payload["attempt"], payload["outcome"]) == (1, "job_failed")
    assert "65" in payload["reason"]
    assert "payer_fay" in payload["link"]
    assert payload["job_link"] == payload["link"]


def test_missing_capacity_is_told_with_what_ec2_has_none_of(mail):
    payload = mail["no_capacity"]["nowhere"]

    assert sorted(mail["no_capacity"]) == ["nowhere"]
    assert (payload["payer"], payload["business_date"]) == ("fay", DATES[0])
    assert payload["outcome"] == "no_capacity"
    assert "InsufficientInstanceCapacity" in payload["reason"]
    assert "payer_fay" in payload["link"]


def test_who_waits_too_long_is_told_behind_whom(mail, told):
    waiting = mail["waiting"]

    assert sorted([*waiting, *told["runs"]]) == sorted(CROWD)
    second, last = sorted(waiting, key=lambda job: "behind" in waiting[job]["reason"])
    holder = f"taken by gus/{told['runs'][0]} {DATES[0]} (launched "
    assert "#1 in line: 2 vCPU wanted, 0 of 2 vCPU of payer gus free" in waiting[second]["reason"]
    assert f"#2 in line, behind #1 gus/{second} {DATES[0]} (" in waiting[last]["reason"]
    for payload in waiting.values():
        assert payload["reason"].startswith("waits for ")
        assert holder in payload["reason"]
        assert (payload["payer"], payload["business_date"]) == ("gus", DATES[0])
        assert "alerting_reaper" in payload["link"]
        assert payload["job_link"].endswith("/a1/")


def test_an_orphan_is_told_with_the_job_that_it_belonged_to_and_is_ended(world, mail, told):
    payload = mail["orphan"]["bad"]

    assert list(mail["orphan"]) == ["bad"]
    assert (payload["payer"], payload["business_date"]) == ("fay", DATES[0])
    assert told["orphan"] in payload["reason"]
    assert "its attempt is over" in payload["reason"]
    assert "alerting_reaper" in payload["link"]
    assert payload["job_link"].endswith("/a1/")
    world.cloud.wait_for_state(told["orphan"], "terminated")


def test_no_alert_has_a_word_of_what_the_job_printed(world, mail):
    text = (world.home / "alerts.jsonl").read_text(encoding="utf-8")

    assert read_job_logs(world.cloud, world.engine).count(SECRET) == 2  # stdout and stderr
    assert not [word for word in SECRET.split() if word in text]


def test_no_attempt_had_two_machines_and_none_is_left(world):
    machines = [one for mine in machines_by_job(world.cloud).values() for one in mine.values()]
    tokens = [one.token for one in machines]

    assert machines
    assert len(set(tokens)) == len(tokens)
    wait_until(
        lambda: set(world.cloud.instances().values()) == {"terminated"}, 60, "all to be gone"
    )
