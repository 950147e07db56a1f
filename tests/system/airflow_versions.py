"""The oldest and the newest supported Airflow: how each is started, and driven as its users do."""

import atexit
import contextlib
import json
import tempfile
from pathlib import Path
from typing import ClassVar

from tests.system.airflow_client import AirflowError
from tests.system.airflow_components import AirflowComponents, WarmCommands
from tests.system.services import CHECKOUT, wait_until

_TABLES = tempfile.TemporaryDirectory(prefix="airflow-tables-")
"""What the first Airflow of each version made of an empty database."""
atexit.register(_TABLES.cleanup)
SCHEDULERS = {"scheduler": "scheduler", "scheduler-2": "scheduler"}
QUERY = """
SELECT dag_id, run_id, task_id, state, try_number, queued_by_job_id FROM task_instance
"""


class Airflow:
    """What both versions have in common; the database is read, never written."""

    bin_folder = ""
    parts: ClassVar = {}

    def __init__(self, home, dags, postgres, engine, lease_seconds=None, parts=None):
        database = Path(home).name
        self.components = AirflowComponents(
            home,
            dags,
            postgres.make_database(database),
            bin_folder=CHECKOUT / self.bin_folder,
            parts=parts or self.parts,
            engine=engine,
            lease_seconds=lease_seconds,
        )
        self._postgres, self._database = postgres, database
        self._connection = None

    def migrate(self):
        """Make the tables, once for each version: it takes some ten seconds; waits."""
        made = Path(_TABLES.name) / f"{self.name}.sql"
        if made.exists():
            self._postgres.restore(self._database, made)
            return
        self.components.migrate()
        self._postgres.dump(self._database, made)

    def rows(self, query, *values):
        """Ask the database."""
        if self._connection is None:
            self._connection = self._postgres.connect(self._database)
        with self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall()

    def states(self):
        """Return {(dag id, run id, task id): state}."""
        return {tuple(row[:3]): row[3] for row in self.rows(QUERY)}

    def run_state(self, dag_id, run_id):
        found = self.rows(
            "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s", dag_id, run_id
        )
        return found[0][0] if found else None

    def schedulers_that_queued(self):
        """Count the schedulers that gave at least one task to their executor."""
        return len({row[5] for row in self.rows(QUERY) if row[5] is not None})

    def start(self, cloud):
        """Start all parts; ``wait_until_ready`` waits."""
        self.components.start(cloud)

    def wait_for_dags(self, dag_ids, seconds=90):
        """Wait until Airflow can run these DAGs."""
        query = "SELECT dag_id FROM serialized_dag"
        wait_until(
            lambda: (
                self.components.must_run() or set(dag_ids) <= {row[0] for row in self.rows(query)}
            ),
            seconds,
            f"the DAGs {sorted(dag_ids)}",
        )

    def serialized(self, dag_id):
        """Return what the scheduler knows of a DAG, as text."""
        found = self.rows(
            "SELECT data::text FROM serialized_dag WHERE dag_id = %s "
            "ORDER BY last_updated DESC LIMIT 1",
            dag_id,
        )
        return found[0][0] if found else ""

    def stop(self):
        self.components.stop()
        if self._connection is not None:
            self._connection.close()


class AirflowThree(Airflow):
    """The newest: everything through its REST API, and its own command for backfills."""

    name = "3.3"
    bin_folder = ".venv/bin"
    parts: ClassVar = {
        **SCHEDULERS,
        "triggerer": "triggerer",
        "dag-processor": "dag-processor",
        "api-server": "api-server",
    }
    client = None

    def wait_until_ready(self):
        self.client = self.components.log_in()

    def trigger(self, dag_id, run_id, date, **conf):
        body = {"dag_run_id": run_id, "logical_date": f"{date}T00:00:00Z", "conf": conf}
        self.client.ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)

    def xcom(self, dag_id, run_id, task_id, key):
        """Read what the task's page shows; None while there is no such XCom."""
        try:
            return self.client.xcom(dag_id, run_id, task_id, key=key)
        except AirflowError as error:
            if error.status != 404:
                raise
        return None

    def clear(self, dag_id, run_id, task_id, date):
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self.client.ask("POST", f"/api/v2/dags/{dag_id}/clearTaskInstances", body)

    def mark(self, dag_id, run_id, task_id, state):
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.client.ask("PATCH", path, {"new_state": state})

    def delete_running(self, dag_id, run_id):
        """Airflow 3 refuses to delete what runs ("cannot be deleted in running state")."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        self.client.ask("PATCH", path, {"state": "failed"})
        self.delete_run(dag_id, run_id)

    def delete_run(self, dag_id, run_id):
        self.client.ask("DELETE", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")

    def reprocess(self, dag_id, date):
        self.components.command(
            "backfill", "create", "--dag-id", dag_id, "--from-date", date, "--to-date", date,
            "--reprocess-behavior", "completed",
        )  # fmt: skip

    def run_once_more(self, dag_id, run_id, task_id):
        """
        Do nothing: there is no way.

        There is no ``tasks run``, and the API server answers a second start of a task instance with
        409 (``ti_run`` of the execution API starts what is queued or restarting).
        """


class AirflowTwo(Airflow):
    """The oldest: scheduler and triggerer, driven by its command line."""

    name = "2.11"
    bin_folder = ".venv-lowest/bin"
    parts: ClassVar = {**SCHEDULERS, "triggerer": "triggerer"}
    _commands = None

    def start(self, cloud):
        super().start(cloud)
        self._commands = WarmCommands(self.components)

    def wait_until_ready(self):
        self._commands.wait_until_ready()

    def trigger(self, dag_id, run_id, date, **conf):
        self._commands.run(
            argv=["dags", "trigger", dag_id, "--run-id", run_id, "--exec-date", date,
                  "--conf", json.dumps(conf)]
        )  # fmt: skip

    def xcom(self, dag_id, run_id, task_id, key):
        """Read what the task's page shows, from the database; None while there is none."""
        query = "SELECT value FROM xcom WHERE dag_id = %s AND run_id = %s AND task_id = %s"
        found = self.rows(f"{query} AND key = %s", dag_id, run_id, task_id, key)
        return json.loads(bytes(found[0][0])) if found else None

    def clear(self, dag_id, run_id, task_id, date):
        self._commands.run(
            argv=["tasks", "clear", dag_id, "--yes", "--task-regex", f"^{task_id}$",
                  "--start-date", date, "--end-date", date]
        )  # fmt: skip

    def mark(self, dag_id, run_id, task_id, state):
        self._commands.run(mark=[dag_id, run_id, task_id, state])

    def delete_running(self, dag_id, run_id):
        self.delete_run(dag_id, run_id)

    def delete_run(self, dag_id, run_id):
        self._commands.run(delete_run=[dag_id, run_id])

    def reprocess(self, dag_id, date):
        self.components.command(
            "dags", "backfill", dag_id, "--start-date", date, "--end-date", date,
            "--reset-dagruns", "--yes",
        )  # fmt: skip

    def run_once_more(self, dag_id, run_id, task_id):
        """Run the task instance that a worker runs already, by hand."""
        self.components.command("tasks", "run", dag_id, task_id, run_id, "--raw")

    def stop(self):
        if self._commands is not None:
            with contextlib.suppress(OSError):
                self._commands.stop()
        super().stop()


VERSIONS = (AirflowTwo, AirflowThree)
