"""Run one job as several machines at once: one mapped task for each part of ``array_size``.

The job finds its part in ``EPHEMERAL_ARRAY_INDEX`` and their number in ``EPHEMERAL_ARRAY_SIZE``.
``payer_dags`` does the same by itself for every row whose ``array_size`` is more than 1.
"""

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

PARTS = 3
"""``array_size`` of the job in examples.yaml."""

with DAG(
    "example_mapped",
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 (Airflow makes it UTC)
    catchup=False,
    tags=["ephemeral-ec2", "example"],
) as dag:
    EphemeralEC2Operator.partial(
        task_id="parts", payer="zeta", job="parts", config_table="examples.yaml"
    ).expand(array_index=list(range(PARTS)))
