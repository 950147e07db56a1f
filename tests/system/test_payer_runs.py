"""Payer DAGs as people run them: backfills, the trigger form, assets; on real Airflows."""
# ruff: noqa: T201 - says where the logs are

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_settings import EngineSettings
from tests.system.airflow_versions import VERSIONS, AirflowThree
from tests.system.attempt_evidence import machines_by_job
from tests.system.demo_stage import seed
from tests.system.payer_stage import read_traces, write_stage
from tests.system.postgres import Postgres
from tests.system.services import wait_until

pytestmark = pytest.mark.timeout(900)
DATES = ("2026-03-01", "2026-03-02", "2026-03-03")
OTHER = "2026-03-04"
ENDED = {"success", "failed"}
PARTS = {
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag-processor": "dag-processor",
    "api-server": "api-server",
}
RUNS = "SELECT run_id, state, run_type, logical_date FROM dag_run WHERE dag_id = %s"
STATES = """
SELECT task_id, map_index, state FROM task_instance WHERE dag_id = %s AND run_id = %s
"""


class World:
    """One Airflow, one local EC2, and what the jobs have left."""

    def __init__(self, airflow, cloud, runs, engine):
        self.airflow, self.cloud, self.runs, self.engine = airflow, cloud, runs, engine

    def traces(self, payer):
        return {key[1:]: times for key, times in read_traces(self.runs).items() if key[0] == payer}

    def counts(self, payer, dates=DATES):
        """How often each job ran for each of these dates."""
        traces = self.traces(payer)
        jobs = ("member", "claims")
        return {date: tuple(len(traces.get((job, date), ())) for job in jobs) for date in dates}

    def run(self, dag_id, run_id, date=DATES[0], **conf):
        """Start a run, wait for its end; returns {(task, part): state}."""
        self.airflow.trigger(dag_id, run_id, date, **conf)
        wait_until(
            lambda: self.airflow.run_state(dag_id, run_id) in ENDED, 120, f"{dag_id} {run_id}"
        )
        return {tuple(row[:2]): row[2] for row in self.airflow.rows(STATES, dag_id, run_id)}

    def launches(self, payer):
        """Launch records of a payer, by run id of nobody: read from the bucket."""
        s3, found = self.cloud.client("s3"), []
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.engine.bucket):
            for item in page.get("Contents", ()):
                if item["Key"].endswith("/launch.json"):
                    body = s3.get_object(Bucket=self.engine.bucket, Key=item["Key"])["Body"]
                    record = json.loads(body.read())
                    if record["spec"]["payer"] == payer:
                        found.append(record)
        return found

    def backfill(self, dag_id, behavior, *more, dates=(DATES[0], DATES[-1])):
        """Begin the command as a person does; ``await_backfills`` waits for what comes of it."""
        return self.airflow.components.command(
            "backfill", "create", "--dag-id", dag_id, "--from-date", dates[0],
            "--to-date", f"{dates[-1]}T23:00:00", "--reprocess-behavior", behavior, *more,
        )  # fmt: skip

    def await_backfills(self, **commands):
        """Wait for commands and then for all runs of their payers; by payer."""
        for command in commands.values():
            command.wait(120)
        for payer in commands:
            self.await_runs(f"payer_{payer}")

    def await_runs(self, dag_id):
        """Wait until no run of a DAG is under way and no backfill is open."""
        wait_until(
            lambda: (
                {row[1] for row in self.airflow.rows(RUNS, dag_id)} <= ENDED
                and not self.airflow.rows(
                    "SELECT id FROM backfill WHERE dag_id = %s AND completed_at IS NULL", dag_id
                )
            ),
            240,
            f"the runs of {dag_id}",
        )


def start(version, home, postgres, stack):
    dags, runs = home / "dags", home / "runs"
    home.mkdir()
    home.chmod(0o755)
    write_stage(dags, runs)
    engine = EngineSettings(environment="main")
    parts = {name: part for name, part in PARTS.items() if name in version.parts}
    name = f"airflow_{version.name.replace('.', '_')}"
    airflow = version(home / name, dags, postgres, engine, parts=parts)
    stack.callback(airflow.stop)
    # Runs that assets start are made where runs that cron starts are made.
    airflow.components.environ["AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"] = "True"
    cloud = stack.enter_context(local_ec2(seed(engine), home / "ec2", pending=0.1, stop_grace=1))
    airflow.components.migrate()
    airflow.start(cloud)
    airflow.wait_until_ready()
    airflow.wait_for_dags([f"payer_{name}" for name in ("acme", "bolt", "cora", "dana", "echo")])
    return World(airflow, cloud, runs, engine)


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
        yield start(request.param, home, postgres, stack)
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
    three.await_backfills(
        acme=three.backfill("payer_acme", "none"), bolt=three.backfill("payer_bolt", "none")
    )

    assert three.counts("acme") == dict.fromkeys(DATES, (1, 1))
    assert three.counts("bolt") == {DATES[0]: (1, 1), DATES[1]: (1, 0), DATES[2]: (1, 1)}
    traces = three.traces("acme")
    for date in DATES:
        assert traces["member", date][0][1] <= traces["claims", date][0][0]
    launches = {one["business_date"]: one for one in three.launches("acme")}
    assert all(launches[date]["is_backfill"] for date in DATES)


def test_a_second_backfill_runs_nothing_or_only_what_failed(three):
    three.await_backfills(
        acme=three.backfill("payer_acme", "none"), bolt=three.backfill("payer_bolt", "failed")
    )

    assert three.counts("acme") == dict.fromkeys(DATES, (1, 1))
    assert three.counts("bolt") == {DATES[0]: (1, 1), DATES[1]: (2, 1), DATES[2]: (1, 1)}


def test_reprocessing_what_completed_runs_everything_once_more(three):
    three.await_backfills(acme=three.backfill("payer_acme", "completed"))

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

    command = three.backfill("payer_acme", "none", "--dag-run-conf", conf, dates=["2026-04-01"])
    three.airflow.client.change("POST", "/api/v2/backfills", body)
    three.await_backfills(acme=command)
    three.await_runs("payer_bolt")

    assert three.counts("acme", ["2026-04-01"]) == {"2026-04-01": (1, 0)}
    rows = three.airflow.rows(RUNS, "payer_bolt")
    may = [row[2] for row in rows if row[3] is not None and row[3].month == 5]
    assert may == ["backfill", "backfill"]
    assert not [date for _, date in three.traces("bolt") if date.startswith("2026-05")]


def test_no_attempt_had_two_machines_and_none_is_left(world):
    machines = [one for mine in machines_by_job(world.cloud).values() for one in mine.values()]
    tokens = [one.token for one in machines]

    assert machines
    assert len(set(tokens)) == len(tokens)
    wait_until(
        lambda: set(world.cloud.instances().values()) == {"terminated"}, 60, "all to be gone"
    )
