"""One Airflow, one local EC2, and payers whose DAGs run as people run them."""

import json

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_settings import EngineSettings
from tests.system.alert_stage import DAG_IDS, read_alerts, write_alert_stage
from tests.system.demo_stage import seed
from tests.system.payer_stage import read_traces, write_stage
from tests.system.services import wait_until

DATES = ("2026-03-01", "2026-03-02", "2026-03-03")
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

    def __init__(self, airflow, cloud, home, engine):
        self.airflow, self.cloud, self.engine = airflow, cloud, engine
        self.home, self.runs = home, home / "runs"
        self._commands = {}

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

    def alerts(self, event):
        """Return what was told of an event: {job: payload}, once each."""
        told = [one for one in read_alerts(self.home) if one["event"] == event]
        by_job = {one["job"]: one for one in told}
        assert len(by_job) == len(told), told
        return by_job

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

    def begin_backfill(self, dag_id, behavior, *more, dates=(DATES[0], DATES[-1])):
        """Begin the command as a person does; ``await_backfills`` waits for what comes of it."""
        self._commands[dag_id] = self.airflow.components.command(
            "backfill", "create", "--dag-id", dag_id, "--from-date", dates[0],
            "--to-date", f"{dates[-1]}T23:00:00", "--reprocess-behavior", behavior, *more,
        )  # fmt: skip

    def await_backfills(self, *dag_ids):
        """Wait for the commands that were begun, and then for all runs of their DAGs."""
        for dag_id in dag_ids:
            self._commands.pop(dag_id).wait(120)
        for dag_id in dag_ids:
            self.await_runs(dag_id)

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
    write_alert_stage(dags, runs)
    engine = EngineSettings(environment="main")
    parts = {name: part for name, part in PARTS.items() if name in version.parts}
    name = f"airflow_{version.name.replace('.', '_')}"
    airflow = version(home / name, dags, postgres, engine, parts=parts)
    stack.callback(airflow.stop)
    # Runs that assets start are made where runs that cron starts are made.
    airflow.components.environ["AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"] = "True"
    cloud = stack.enter_context(local_ec2(seed(engine), home / "ec2", pending=0.1, stop_grace=1))
    airflow.migrate()
    airflow.start(cloud)
    airflow.wait_until_ready()
    airflow.wait_for_dags(
        [*DAG_IDS, *(f"payer_{name}" for name in ("acme", "bolt", "cora", "dana", "echo"))]
    )
    return World(airflow, cloud, home, engine)
