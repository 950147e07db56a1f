"""How the demo runs Airflow: commands and environment, as values; docker-compose.yaml has the same."""

import json
from dataclasses import dataclass
from pathlib import Path

COMMANDS = {
    "scheduler": ("airflow", "scheduler"),
    "triggerer": ("airflow", "triggerer"),
    "dag-processor": ("airflow", "dag-processor"),
    "api-server": ("airflow", "api-server"),
}
MIGRATE = ("airflow", "db", "migrate")
USER = "admin"

SHARED = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # A payer that is added to the table shows within 30 s; the table is not the DAG file, so
    # Airflow sees it only when it parses the DAG file again.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
}
"""What the demo and docker-compose.yaml have in common."""

QUICK = {
    # Two cores are enough: few idle processes, short sleeps, no work that nobody sees.
    "AIRFLOW__CORE__PARALLELISM": "4",
    # DAGs run when they are triggered, and not for today because they are new.
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "airflow.utils.net.get_host_ip_address",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    # Also how late a worker may notice that its task has deferred, and be free for the next.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


@dataclass(frozen=True)
class Cloud:
    """The local EC2, as a connection needs it."""

    url: str
    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class Ports:
    """One per listener of Airflow."""

    api: int
    worker_logs: int
    trigger_logs: int


@dataclass(frozen=True)
class EngineSettings:
    """``[ephemeral_ec2]``."""

    environment: str = "demo"
    bucket: str = "ephemeral-ec2-state"
    region: str = "us-east-1"
    poll_interval: float = 1.0

    def environ(self):
        return {
            f"AIRFLOW__EPHEMERAL_EC2__{name.upper()}": str(value)
            for name, value in vars(self).items()
        }


def airflow_environ(home, dags, ports, engine, *, secret):
    """Return Airflow's environment without the cloud: enough to make the database."""
    url = f"http://127.0.0.1:{ports.api}"
    return {
        **SHARED,
        **QUICK,
        **engine.environ(),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__API__PORT": str(ports.api),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": secret,
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports.worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.trigger_logs),
    }


def cloud_environ(cloud, region="us-east-1"):
    """Return the connection of a local EC2 in Airflow's environment."""
    connection = {
        "conn_type": "aws",
        "login": cloud.access_key_id,
        "password": cloud.secret_access_key,
        "extra": {
            "endpoint_url": cloud.url,
            "region_name": region,
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }
    return {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection)}


def password_file(home):
    """Where Airflow leaves the password that it made up."""
    return Path(home) / "simple_auth_manager_passwords.json.generated"
