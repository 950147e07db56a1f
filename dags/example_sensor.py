"""Launch a job in one place, wait for it in another.

The first task succeeds as soon as the machine is launched; what runs between it and the sensor
runs beside the job. The sensor could as well stand in another DAG, without ``launch``:
``EphemeralEC2Sensor(payer="zeta", job="report", business_date="{{ ... }}")``.
"""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator
from airflow_ephemeral_ec2.sensors.ec2 import EphemeralEC2Sensor

with DAG(
    "example_sensor",
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 (Airflow makes it UTC)
    catchup=False,
    tags=["ephemeral-ec2", "example"],
) as dag:
    launch = EphemeralEC2Operator(
        task_id="launch",
        payer="zeta",
        job="report",
        config_table="examples.yaml",
        wait_for_completion=False,
    )
    EphemeralEC2Sensor(task_id="wait", launch=launch.output, timeout=3_600)
