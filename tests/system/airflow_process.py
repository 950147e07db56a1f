"""A real Airflow on this machine: scheduler, triggerer, DAG processor and API server."""

import json
import secrets
import shutil
import sys
import time
from pathlib import Path

from tests.system.airflow_client import AirflowClient, AirflowError
from tests.system.airflow_settings import (
    COMMANDS,
    MIGRATE,
    USER,
    EngineSettings,
    Ports,
    airflow_environ,
    cloud_environ,
    password_file,
)
from tests.system.services import (
    Service,
    ServiceError,
    free_ports,
    plain_environment,
    wait_until,
)

START_SECONDS = 120.0
PARTS = ("scheduler", "triggerer", "dag_processor")


class AirflowProcess:
    """
    One Airflow whose home is a folder of ours; SQLite, LocalExecutor.

    First ``prepare`` (makes the database, needs no cloud), then ``start``, at last ``stop``.
    """

    def __init__(self, home, dags, engine=None, port=0):
        self.home = Path(home)
        self.dags = Path(dags)
        ports = Ports(*free_ports(3, first=port))
        self.url = f"http://127.0.0.1:{ports.api}"
        self._environ = plain_environment(
            **airflow_environ(
                self.home,
                self.dags,
                ports,
                engine or EngineSettings(),
                secret=secrets.token_hex(32),
            )
        )
        self._services = []
        self._migration = None

    @property
    def password(self):
        return json.loads(password_file(self.home).read_text(encoding="utf-8"))[USER]

    def prepare(self):
        """Begin to make the database; does not wait."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self._migration = self._service("db-migrate", MIGRATE)

    def start(self, cloud, tell=lambda line: None):
        """Start all parts and wait until every one is healthy; returns a logged-in client."""
        began = time.monotonic()
        self._migration.wait(START_SECONDS)
        self._environ.update(cloud_environ(cloud))
        tell(f"database ready; starting {', '.join(COMMANDS)}")
        self._services = [self._service(name, command) for name, command in COMMANDS.items()]
        client = wait_until(self._log_in, START_SECONDS, "Airflow's API server", self._services)
        tell(f"API server answers after {time.monotonic() - began:.0f}s")
        wait_until(
            lambda: self._healthy(client), START_SECONDS, "all of Airflow's parts", self._services
        )
        tell(f"all parts healthy after {time.monotonic() - began:.0f}s")
        return client

    def must_run(self):
        """Raise ServiceError if a part has ended."""
        for service in self._services:
            service.must_run()

    def let_go(self):
        """Begin to stop; returns at once."""
        for service in (self._migration, *self._services):
            if service is not None:
                service.let_go()

    def stop(self):
        """End every part and all that they started."""
        self.let_go()
        for service in (self._migration, *self._services):
            if service is not None:
                service.stop()

    def _service(self, name, command):
        program = Path(sys.executable).with_name(command[0])
        log = self.home / "logs" / f"{name}.log"
        return Service(name, [str(program), *command[1:]], self._environ, log)

    def _log_in(self):
        try:
            return AirflowClient(self.url, USER, self.password)
        except (OSError, KeyError, ValueError, AirflowError):
            return None

    @staticmethod
    def _healthy(client):
        try:
            health = client.ask("GET", "/api/v2/monitor/health")
        except (OSError, AirflowError):
            return False
        return all(health[part]["status"] == "healthy" for part in PARTS)


__all__ = ["AirflowProcess", "ServiceError"]
