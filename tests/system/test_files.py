"""A file lands, the payer's jobs run for its date: on Airflow 2.11 and 3.3."""
# ruff: noqa: T201 - prints how long it took

import contextlib
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_settings import EngineSettings
from tests.system.airflow_versions import VERSIONS
from tests.system.demo_stage import seed
from tests.system.file_stage import DAG_ID, LANDING, QUEUE, Landing, count_work, lay_out
from tests.system.postgres import Postgres
from tests.system.services import wait_until

pytestmark = [pytest.mark.timeout(900), pytest.mark.nightly]
RUNS = "SELECT run_id, state FROM dag_run WHERE dag_id = %s"


class FileWorld:
    """One Airflow and one local EC2 that a payer sends files to."""

    def __init__(self, version, home, stack):
        engine = EngineSettings(environment="files")
        postgres = Postgres(home / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        queues = {"file_queues": {QUEUE: f"{LANDING}/acme/"}}
        self.cloud = stack.enter_context(
            local_ec2(seed(engine) | queues, home / "ec2", pending=0.1, stop_grace=1)
        )
        self.landing = Landing(self.cloud)
        self.runs = home / "runs"
        lay_out(home / "dags", self.runs, self.landing.queue_url)
        parts = {name: part for name, part in version.parts.items() if name != "scheduler-2"}
        self.airflow = version(home / "airflow", home / "dags", postgres, engine, parts=parts)
        stack.callback(self.airflow.stop)
        # Here DAGs run by themselves, that is the point.
        self.airflow.components.environ["AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"] = "True"
        self.airflow.migrate()
        self.airflow.start(self.cloud)
        self.airflow.wait_for_dags([DAG_ID, f"{DAG_ID}_files"])

    def dates(self, *states):
        """Return {business date: runs of the payer's DAG} in these states."""
        found = self.airflow.rows(RUNS, DAG_ID)
        return Counter(run.split("__")[1] for run, state in found if not states or state in states)

    def wait_for(self, dates, seconds=240):
        """Wait until so many runs of each date have succeeded."""

        def look():
            self.airflow.components.must_run()
            return self.dates("success") == dates

        wait_until(look, seconds, f"runs {dates}, found {self.airflow.rows(RUNS, DAG_ID)}")

    def wait_until_quiet(self):
        wait_until(self.landing.is_quiet, 60, "an empty queue")


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.name)
def world(request):
    home = Path(tempfile.mkdtemp(prefix="files-"))
    home.chmod(0o755)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        made = FileWorld(request.param, home, stack)
        print(f"\n{request.param.name}: ready after {time.monotonic() - began:.0f}s")
        yield made
    if request.session.testsfailed:
        print(f"logs: {home}")
    else:
        shutil.rmtree(home)


def test_a_file_that_lands_runs_the_jobs_once_for_its_date(world):
    landing, began = world.landing, time.monotonic()
    landing.drop("2026-03-05_empty.csv", b"")
    landing.drop("2026-03-05_members.csv.part")
    landing.drop("2026-03-05_members.txt")
    landing.drop_half("2026-03-06_members.csv")
    landing.drop("members_20260301.csv")

    world.wait_for({"2026-03-01": 1})
    print(f"first file: {time.monotonic() - began:.0f}s")
    landing.deliver_again("members_20260301.csv")
    landing.drop("members_20260301.csv")  # the same bytes
    world.wait_until_quiet()
    # Two dates at the same time: what comes late for the first one, and a new one.
    landing.drop("members_20260301_more.csv")
    landing.drop("2026-03-02/members.csv")
    world.wait_for({"2026-03-01": 2, "2026-03-02": 1})
    world.wait_until_quiet()

    assert world.dates() == {"2026-03-01": 2, "2026-03-02": 1}
    assert count_work(world.runs) == {
        ("member", "2026-03-01"): 2,
        ("member", "2026-03-02"): 1,
    }
    print(f"all: {time.monotonic() - began:.0f}s")


def test_each_version_waits_in_its_own_way(world):
    text = world.airflow.serialized(f"{DAG_ID}_files")

    assert ("SqsSensorTrigger" in text) == (world.airflow.name != "2.11")
    assert ("ContinuousTimetable" in text) == (world.airflow.name == "2.11")
