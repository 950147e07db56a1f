"""A real Airflow and the local EC2: every ending of the first release, as a user sees it."""
# ruff: noqa: T201 - says where the logs are

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_process import AirflowProcess
from tests.system.airflow_settings import EngineSettings
from tests.system.demo_report import read_outcomes
from tests.system.demo_stage import lay_out_dags, push, seed
from tests.system.endings_table import NEW_PAYER, lay_out
from tests.system.screenshots import Camera, find_browser, open_browser
from tests.system.services import wait_until

pytestmark = pytest.mark.timeout(900)
DATE = "2026-03-01"
RUN = "e2e"
DAGS = ("payer_tess", "example_sensor", "example_mapped")
ENDED = {"success", "failed"}


class World:
    """Airflow, cloud and DAGs folder of this module, and what the runs left."""

    def __init__(self, airflow, client, cloud, table, engine):
        self.airflow = airflow
        self.client = client
        self.cloud = cloud
        self.table = table
        self.engine = engine
        self.records = {}

    def task(self, job, dag_id="payer_tess", map_index=-1):
        return self.client.tasks(dag_id, RUN)[job, map_index]

    def log(self, job, dag_id="payer_tess", map_index=-1):
        return self.client.log(dag_id, RUN, job, map_index=map_index)

    def text(self, job, **where):
        return "\n".join(self.log(job, **where))

    def record(self, job):
        return self.records["tess", job][0]

    def xcom(self, job, dag_id="payer_tess", map_index=-1):
        return self.client.xcom(dag_id, RUN, job, map_index=map_index)


@pytest.fixture(scope="module")
def world(request):
    """Start everything, run three DAGs to their ends with one job killed on the way."""
    home = Path(tempfile.mkdtemp(prefix="end-to-end-"))
    home.chmod(0o755)
    engine = EngineSettings(environment="e2e")
    lay_out_dags(home / "dags", copy=True)
    (home / "dags" / "payer_pipelines.py").unlink()
    table = lay_out(home / "dags")
    airflow = AirflowProcess(home / "airflow", home / "dags", engine)
    airflow.prepare()
    is_up = False
    try:
        with local_ec2(seed(engine), home / "ec2") as cloud:
            client = airflow.start(cloud)
            made = World(airflow, client, cloud, table, engine)
            _stage(made, table)
            _run(made)
            is_up = True
            yield made
            airflow.let_go()
    finally:
        airflow.stop()
        if is_up and not request.session.testsfailed:
            shutil.rmtree(home)
        else:
            print(f"logs: {home}")


def _stage(world, table):
    push(world.cloud, world.engine, table)
    push(world.cloud, world.engine, table.with_name("examples.yaml"))
    s3 = world.cloud.client("s3")
    prefix = f"{world.engine.environment}/code/"
    (code,) = s3.list_objects_v2(Bucket=world.engine.bucket, Prefix=prefix)["Contents"]
    s3.put_object(Bucket=world.engine.bucket, Key=code["Key"], Body=b"not what was pushed")
    world.cloud.add_fault(
        action="RunInstances",
        match={"InstanceType": "c7i.large"},
        code="InsufficientInstanceCapacity",
        count=0,
    )


def _run(world):
    wait_until(lambda: set(DAGS) <= world.client.dags(), 60, f"the DAGs {DAGS}")
    for dag_id in DAGS:
        world.client.trigger(dag_id, RUN, DATE)
    wait_until(lambda: _only_one_is_left(world), 300, "all jobs but the one to kill to end")
    world.killed_machine = wait_until(lambda: _running_machine(world), 60, "its machine to run")
    world.client.mark_failed("payer_tess", RUN, "killed")
    wait_until(lambda: world.client.run_state("payer_tess", RUN) in ENDED, 60, "the run to end")
    wait_until(lambda: "killed" in {job for _, job in _read(world)}, 30, "the killed job's outcome")
    world.records = _read(world)


def _only_one_is_left(world):
    """Whether only the deferred job is left: nothing else of Airflow writes while it is killed."""
    time.sleep(0.5)
    states = {
        (dag_id, *name): task["state"]
        for dag_id in DAGS
        for name, task in world.client.tasks(dag_id, RUN).items()
    }
    waiting = states.pop(("payer_tess", "killed", -1))
    return waiting == "deferred" and set(states.values()) <= {*ENDED, "skipped"}


def _running_machine(world):
    for line in world.cloud.lines():
        is_running = line.get("event") == "state" and line["state"] == "running"
        if is_running and line["tags"].get("ephemeral-ec2:job") == "killed":
            return line["instance_id"]
    return None


def _read(world):
    found = {}
    s3 = world.cloud.client("s3")
    for record in read_outcomes(s3, world.engine.bucket, world.engine.environment):
        found.setdefault((record["payer"], record["job"]), []).append(record)
    return found


def test_a_job_that_worked_says_so_in_task_log_and_xcom(world):
    value = world.xcom("good")

    assert world.task("good")["state"] == "success"
    assert "outcome: succeeded, exit 0" in world.text("good")
    assert (value["outcome"], value["exit_code"]) == ("succeeded", 0)
    assert value["instance_type"] == "m7i.large"
    assert value["instance_id"] in world.cloud.instances()
    assert value["log"].startswith(f"s3://{world.engine.bucket}/")


@pytest.mark.parametrize(("job", "starts"), [("good", 1), ("bad", 2), ("skip", 2)])
def test_a_success_with_nothing_to_lose_takes_one_start_of_a_worker(world, job, starts):
    assert world.client.starts("payer_tess", RUN, job) == starts


def test_what_a_job_prints_is_not_copied_into_airflow(world):
    assert "name of a patient" not in world.text("good")


def test_a_job_that_failed_shows_its_exit_status_in_log_message_and_xcom(world):
    value = world.xcom("bad")

    assert world.task("bad")["state"] == "failed"
    assert (value["outcome"], value["exit_code"]) == ("job_failed", 65)
    assert "exit 65" in world.text("bad")
    assert "Not retried: 65 is not in retry_exit_codes" in world.text("bad")


@pytest.mark.parametrize(("job", "words"), [("good", "exit 0"), ("bad", "exit 65")])
def test_the_last_line_of_the_task_log_that_is_ours_has_the_exit_status(world, job, words):
    ours = [line for line in world.log(job) if line.startswith("outcome:")]

    assert len(ours) == 1
    assert words in ours[0]


def test_a_skip_code_skips_the_task(world):
    assert world.task("skip")["state"] == "skipped"
    assert world.record("skip")["outcome"] == "skipped"
    assert world.record("skip")["exit_code"] == 99


def test_a_command_that_does_not_exist_is_127(world):
    assert world.task("missing")["state"] == "failed"
    assert world.record("missing")["exit_code"] == 127
    assert "exit 127" in world.text("missing")


def test_a_job_over_its_time_is_stopped_and_called_a_timeout(world):
    assert world.task("slow")["state"] == "failed"
    assert world.record("slow")["outcome"] == "job_timeout"
    assert world.record("slow")["seconds"] < 30


def test_no_capacity_anywhere_names_every_place_that_was_tried(world):
    assert world.task("no-machine")["state"] == "failed"
    assert world.record("no-machine")["outcome"] == "no_capacity"
    assert "c7i.large" in world.text("no-machine")
    assert world.record("no-machine")["machine"] is None


def test_a_row_that_ec2_refuses_is_bad_config_at_once(world):
    assert world.task("wrong-profile")["state"] == "failed"
    assert world.record("wrong-profile")["outcome"] == "bad_config"
    assert "nobody" in world.text("wrong-profile")


def test_code_that_is_not_what_was_pushed_never_runs(world):
    assert world.task("tampered")["state"] == "failed"
    assert world.record("tampered")["outcome"] == "setup_failed"
    assert world.record("tampered")["exit_code"] is None
    assert "sha256" in world.record("tampered")["reason"]


def test_a_task_marked_failed_takes_its_machine_with_it(world):
    assert world.task("killed")["state"] == "failed"
    assert world.record("killed")["outcome"] == "killed"
    assert world.cloud.instances()[world.killed_machine] == "terminated"


def test_a_job_launched_without_waiting_is_awaited_by_the_sensor(world):
    launch, wait = (world.task(task, "example_sensor") for task in ("launch", "wait"))
    launched = world.xcom("launch", "example_sensor")
    waited = world.xcom("wait", "example_sensor")

    assert (launch["state"], wait["state"]) == ("success", "success")
    assert launched["jobkey"] == waited["jobkey"]
    # A short job may be over before anybody on a busy machine hears of its launch.
    assert launched.get("outcome") in (None, "succeeded")
    assert waited["outcome"] == "succeeded"


def test_a_mapped_job_runs_every_part_on_a_machine_of_its_own(world):
    parts = [world.xcom("parts", "example_mapped", map_index=part) for part in range(3)]

    assert {part["outcome"] for part in parts} == {"succeeded"}
    assert len({part["instance_id"] for part in parts}) == 3


def test_every_attempt_had_one_machine_and_none_is_left(world):
    assert {len(records) for key, records in world.records.items() if key[1] != "parts"} == {1}
    assert set(world.cloud.instances().values()) == {"terminated"}


@pytest.mark.skipif(find_browser() is None, reason="no Chromium; Debian: apt-get install chromium")
def test_the_ui_shows_a_failed_task_with_its_exit_status(world, tmp_path):
    picture = tmp_path / "bad.png"

    with open_browser(find_browser()) as browser:
        camera = Camera(browser, world.airflow.url, world.airflow.password, "grid")
        words = ["outcome: job failed, exit 65"]
        camera.take(f"/dags/payer_tess/runs/{RUN}/tasks/bad", words, picture)

    assert picture.stat().st_size > 10_000


def test_a_payer_added_to_the_table_shows_within_30_seconds(world):
    began = time.monotonic()

    with world.table.open("a", encoding="utf-8") as file:
        file.write(NEW_PAYER)
    wait_until(lambda: "payer_nova" in world.client.dags(), 30, "the new payer's DAG")

    assert time.monotonic() - began < 30
    assert world.client.import_errors() == []
