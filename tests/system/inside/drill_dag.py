"""The DAG file of the drills: ten jobs that wait for nobody, some on workers, most deferred."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

with DAG(
    "drill",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017
    catchup=False,
    max_active_runs=4,
) as dag:
    for number in range(10):
        EphemeralEC2Operator(
            task_id=f"job-{number}",
            payer="tess",
            job=f"job-{number}",
            config_table=str(Path(__file__).with_name("attempts.yaml")),
            deferrable=number % 3 != 0,
            # Each kill of a worker costs a try, whatever became of the work.
            retries=9,
            retry_delay=timedelta(seconds=1),
        )
