"""A real Airflow in parts that can be killed and started again one by one; on PostgreSQL."""

import json
import os
import secrets
import subprocess
import time
from pathlib import Path

from tests.system.airflow_client import AirflowClient, AirflowError
from tests.system.airflow_settings import (
    USER,
    EngineSettings,
    Ports,
    airflow_environ,
    cloud_environ,
    password_file,
)
from tests.system.services import (
    CHECKOUT,
    Service,
    ServiceError,
    free_ports,
    plain_environment,
    wait_until,
)

INSIDE = Path(__file__).with_name("inside")
START_SECONDS = 150.0
COMMANDS = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "api-server": ("api-server",),
}

QUICK_TO_NOTICE = {
    # A dead part is noticed within seconds, not minutes; otherwise all is as Airflow has it.
    "AIRFLOW__CORE__PARALLELISM": "8",
    # On a busy machine an import takes longer than 30 s; Airflow would reschedule the task for
    # "Dag not found during start up", again and again.
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "32",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "8",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    # The same in the words of Airflow 2.
    "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
    # A changed DAG file is noticed within seconds.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
}


class AirflowComponents:
    """
    The parts of one Airflow, each on a leash of its own.

    :param bin_folder: ``bin`` of the environment whose Airflow this is
    :param database: address of an empty database, for SQLAlchemy
    :param parts: name of a part -> name of its command; two schedulers are two parts
    """

    def __init__(self, home, dags, database, *, bin_folder, parts, engine=None, lease_seconds=None):
        self.home = Path(home)
        self.home.mkdir(parents=True)
        self.crash_points = self.home / "crash-points"
        self.crash_points.mkdir()
        self.bin_folder = Path(bin_folder)
        self.parts = dict(parts)
        self.services = {}
        self._started = {}
        ports = Ports(*free_ports(3))
        self.url = f"http://127.0.0.1:{ports.api}"
        settings = airflow_environ(
            self.home, dags, ports, engine or EngineSettings(), secret=secrets.token_hex(32)
        )
        lease = {} if lease_seconds is None else {"CONTROLLER_LEASE_SECONDS": str(lease_seconds)}
        self.environ = plain_environment(
            **{
                **settings,
                **QUICK_TO_NOTICE,
                **lease,
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
                "AIRFLOW__AWS__SESSION_FACTORY": "crash_session.CrashSessionFactory",
                "AIRFLOW__CORE__PLUGINS_FOLDER": str(INSIDE / "plugins"),
                "CRASH_POINTS": str(self.crash_points),
                # This checkout, whatever the environment has installed.
                "PYTHONPATH": os.pathsep.join((str(INSIDE), str(CHECKOUT))),
            }
        )

    def migrate(self):
        """Make the tables; waits."""
        migration = self._service("db-migrate", ("db", "migrate"))
        migration.wait(START_SECONDS)

    def start(self, cloud):
        """Start every part; does not wait."""
        self.environ.update(cloud_environ(cloud))
        for name in self.parts:
            self.start_part(name)

    def start_part(self, name):
        """Start a part, again if it was killed; its log goes on in a new file."""
        if name in self.services:
            # Also what a killed part left behind must not outlive these tests.
            self.services[f"{name}-{self._started[name]}"] = self.services[name]
        self._started[name] = self._started.get(name, 0) + 1
        log = f"{name}-{self._started[name]}"
        command = COMMANDS[self.parts[name]]
        self.services[name] = self._service(log, command, stays=True)

    def kill(self, name, number=9):
        """Send one part a signal; returns whether it was alive."""
        return self.services[name].kill(number)

    def must_run(self):
        """Raise ServiceError if a part that nobody has killed is gone."""
        for name in self.parts:
            service = self.services[name]
            if service.has_ended:
                message = f"{service.name} has ended; {service.log}:\n{service.last_lines()}"
                raise ServiceError(message)

    def arm(self, name, operation, when, needles):
        """Let the process die that makes this AWS call; see ``inside/crash_session.py``."""
        text = json.dumps({"operation": operation, "when": when, "needles": needles})
        path = self.crash_points / name
        path.write_text(text, encoding="utf-8")
        path.rename(path.with_suffix(".json"))

    def has_crashed(self, name):
        """Whether an armed crash has happened."""
        return any(self.crash_points.glob(f"{name}.crashed-*"))

    def command(self, *words):
        """Run an ``airflow`` command to its end in the background; returns its service."""
        return self._service(f"command-{words[0]}-{time.monotonic_ns()}", words)

    def log_in(self):
        """Wait for the API server and return a logged-in client (Airflow 3)."""
        return wait_until(self._client, START_SECONDS, "Airflow's API server")

    def _client(self):
        self.must_run()
        try:
            password = json.loads(password_file(self.home).read_text(encoding="utf-8"))[USER]
            return AirflowClient(self.url, USER, password)
        except (OSError, KeyError, ValueError, AirflowError):
            return None

    def stop(self):
        """End every part and all that they started."""
        for service in self.services.values():
            service.let_go()
        for service in self.services.values():
            service.stop()

    def _service(self, name, words, *, stays=False):
        command = [str(self.bin_folder / "airflow"), *words]
        log = self.home / "logs" / f"{name}.log"
        made = Service(name, command, self.environ, log, grace=1.0, stays=stays)
        if not stays:
            self.services[name] = made
        return made


class WarmCommands:
    """Airflow 2's commands in a process that is warm; see ``inside/commands_of_two.py``."""

    def __init__(self, airflow):
        log = airflow.home / "logs" / "commands.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(airflow.bin_folder / "python"), str(INSIDE / "commands_of_two.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=airflow.environ,
                cwd=CHECKOUT,
                text=True,
            )

    def wait_until_ready(self):
        """Wait for the interpreter; raises ServiceError when it has ended."""
        self._answer()

    def run(self, **command):
        """Run one command; raises ServiceError with Airflow's words when it fails."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            message = f"{command}: {answer['error']}"
            raise ServiceError(message)

    def stop(self):
        """Close its input: it ends, also when this process has died."""
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self):
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        message = f"the commands of Airflow 2 have ended with {self._process.wait()}"
        raise ServiceError(message)
