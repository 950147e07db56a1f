"""One Airflow, one local EC2, jobs that sleep: each path ends its own; the bystanders live."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections import defaultdict
from pathlib import Path

from airflow_ephemeral_ec2.local.testing import local_ec2
from tests.system.airflow_settings import EngineSettings
from tests.system.airflow_versions import AirflowThree
from tests.system.attempt_stage import INSIDE, TABLE, count_executions
from tests.system.demo_stage import seed
from tests.system.killing_paths import BYSTANDERS
from tests.system.services import CHECKOUT, ServiceError, wait_until

RUN = "kill"
DATE = "2026-03-01"
REAPER = "ephemeral_ec2_reaper"
TRIGGERERS = ("triggerer", "triggerer-2")
COMMAND = """\
mktemp "$RUNS/$EPHEMERAL_JOB=$EPHEMERAL_ATTEMPT=begin=XXXXXXXX" >/dev/null || exit 9
exec sleep 3600
"""
TASK_PROCESS = re.compile(
    r"airflow task runner: kill_\S+ (?P<task>\S+)|airflow worker -- (?P<id>[0-9a-f]{8}-[0-9a-f-]{27})"
)
"""Title of a process that runs a task, on Airflow 2 and 3: the task, or the id of its instance."""


class Machines:
    """The API log, read as it grows: {job: {instance id: {state: when it was first in it}}}."""

    def __init__(self, api_log):
        self._file = api_log.open(encoding="utf-8")
        self._rest = ""
        self.by_job = defaultdict(dict)

    def read(self):
        lines = (self._rest + self._file.read()).split("\n")
        self._rest = lines.pop()
        for line in lines:
            if '"event": "state"' not in line:
                continue
            found = json.loads(line)
            mine = self.by_job[found["tags"].get("ephemeral-ec2:job", "")]
            mine.setdefault(found["instance_id"], {}).setdefault(found["state"], found["t"])
        return self.by_job

    def of(self, path):
        """Return the machines of a path: {instance id: {state: seconds since 1970}}."""
        self.read()
        return {
            instance_id: states
            for job, machines in self.by_job.items()
            if job.rpartition("-")[0] == path
            for instance_id, states in machines.items()
        }

    def living(self, path):
        return {one for one, states in self.of(path).items() if "shutting-down" not in states}

    def close(self):
        self._file.close()


def lay_out(folder, runs, rows):
    """Make the DAGs folder: a job for each task of each path, and the reaper's own DAG."""
    folder.mkdir(parents=True)
    runs.mkdir()
    runs.chmod(0o777)  # every instance is a user of its own
    names = [f"{row['name']}-{number}" for row in rows for number in range(row["jobs"])]
    table = TABLE | {
        "limits": {"vcpus": 1000},
        "defaults": TABLE["defaults"]
        | {"command": ["sh", "-c", COMMAND], "max_runtime": "3h", "env": {"RUNS": str(runs)}},
        "jobs": {name: {} for name in names},
        "payers": {"tess": {}},
    }
    (folder / "killing.yaml").write_text(json.dumps(table, indent=1), encoding="utf-8")
    (folder / "paths.json").write_text(json.dumps(rows), encoding="utf-8")
    shutil.copyfile(INSIDE / "killing_dag.py", folder / "killing_dag.py")
    shutil.copyfile(CHECKOUT / "dags" / f"{REAPER}.py", folder / f"{REAPER}.py")


class KillingWorld:
    """``open``, then for each path ``start``, do harm, and look at the machines."""

    def __init__(self, version, home, postgres, paths, n, bystanders):
        self.home, self.n, self._bystanders = Path(home), n, bystanders
        self.engine = EngineSettings(environment="kill")
        self.runs = self.home / "runs"
        rows = [self._row(path) for path in paths]
        rows.append(
            {"name": BYSTANDERS, "jobs": bystanders, "timeout": "", "seconds": 0, "retries": 0,
             "deferrable": True, "pause": 0}
        )  # fmt: skip
        lay_out(self.home / "dags", self.runs, rows)
        parts = {name: kind for name, kind in version.parts.items() if name != "scheduler-2"}
        parts["triggerer-2"] = "triggerer"
        self._dags = [*(path.dag_id for path in paths), f"kill_{BYSTANDERS}", REAPER]
        self.airflow = version(
            self.home / f"airflow_{version.name.replace('.', '_')}_kill", self.home / "dags",
            postgres, self.engine, parts=parts,
        )  # fmt: skip
        # Workers hold as many tasks as there are jobs, and some start meanwhile.
        self.airflow.components.environ.update(
            AIRFLOW__CORE__PARALLELISM=str(n + 6),
            AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG="64",
            # Twenty that start together are slow to say that they live; none of them is dead.
            AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="120",
            AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD="120",
        )

    def seconds_of(self, path):
        """Return the timeout of a path: all its jobs must run before, on a busy machine, too."""
        return 60 + 8 * self.n if path.timeout else 0

    def _row(self, path):
        return {
            "name": path.name,
            "jobs": self.n,
            "timeout": path.timeout,
            "seconds": self.seconds_of(path),
            "retries": path.retries,
            "pause": path.pause,
            "deferrable": path.deferrable,
        }

    def open(self, stack):
        """Start everything, and the bystanders."""
        stack.callback(self.airflow.stop)
        self.cloud = stack.enter_context(
            local_ec2(seed(self.engine), self.home / "ec2", pending=0.1, stop_grace=1)
        )
        self.machines = Machines(self.cloud.api_log)
        stack.callback(self.machines.close)
        self.airflow.migrate()
        self.airflow.start(self.cloud)
        self.airflow.wait_until_ready()
        self.airflow.wait_for_dags(self._dags)
        self.airflow.trigger(f"kill_{BYSTANDERS}", RUN, DATE)
        self._wait_for_jobs(BYSTANDERS, self._bystanders)

    # -- jobs

    def start(self, paths):
        """Start the jobs of several paths at once, and wait until all of them run."""
        for path in paths:
            self.airflow.trigger(path.dag_id, RUN, DATE)
        for path in paths:
            self._wait_for_jobs(path.name, self.n)
        # A worker that has not yet let go of its task is none of the paths.
        deferrable = [path for path in paths if path.deferrable]
        wait_until(
            lambda: all(map(self._are_deferred, deferrable)), 180, "the tasks to be deferred"
        )

    def _are_deferred(self, path):
        """Whether all its tasks wait in a triggerer; also when a timeout was faster."""
        query = "SELECT state FROM task_instance WHERE dag_id = %s"
        states = {row[0] for row in self.airflow.rows(query, path.dag_id)}
        return not states & {None, "scheduled", "queued", "running"}

    def _wait_for_jobs(self, name, count):
        def begun():
            self.airflow.components.must_run()
            jobs = {job for job, _ in count_executions(self.runs)}
            return sum(job.rpartition("-")[0] == name for job in jobs) >= count

        wait_until(begun, 240 + 12 * count, f"{count} jobs of {name}")

    def finish(self, path):
        """Delete the run: what is left of the path's machines ends."""
        with contextlib.suppress(Exception):  # the path may have deleted it
            self.airflow.delete_running(path.dag_id, RUN)
        with contextlib.suppress(ServiceError):  # the next path is slower then, that is all
            wait_until(lambda: not self.machines.living(path.name), 60, f"{path.name} to end")

    def tasks(self, path):
        return [(path.dag_id, RUN, f"job-{number}") for number in range(self.n)]

    # -- what cannot be done through Airflow

    def task_processes(self, path):
        """Return {process: task} of those that run a task of a path now."""
        names = {}
        if self.is_three():
            query = "SELECT id, task_id FROM task_instance WHERE dag_id = %s"
            names = {str(one): task for one, task in self.airflow.rows(query, path.dag_id)}
        found = {}
        for pid in self.airflow.components.services["scheduler"].descendants:
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
                shown = TASK_PROCESS.search(title.replace("\0", " "))
                if shown and (task := shown["task"] or names.get(shown["id"])):
                    found[pid] = task
        return found

    def signal_tree(self, part, number):
        """Send a part and all that it started a signal, as a paused or dying host does."""
        service = self.airflow.components.services[part]
        for pid in [service.pid, *service.descendants]:
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(pid, number)

    def triggerer_of_triggers(self):
        """Return {id of a triggerer's job: number of triggers that it holds}."""
        query = "SELECT triggerer_id, count(*) FROM trigger GROUP BY triggerer_id"
        return dict(self.airflow.rows(query))

    def reap(self, number):
        """Run the reaper's DAG once; ``schedule`` would do it every five minutes."""
        self.airflow.trigger(REAPER, f"reap-{number}", f"2026-02-{number:02}")

    def is_three(self):
        return isinstance(self.airflow, AirflowThree)

    def bring_back(self):
        for part in TRIGGERERS:
            if self.airflow.components.services[part].has_ended:
                self.airflow.components.start_part(part)


def stop(world, part):
    world.signal_tree(part, signal.SIGSTOP)


def go_on(world, part):
    world.signal_tree(part, signal.SIGCONT)


def sleep_until(moment):
    time.sleep(max(moment - time.time(), 0.0))
