"""Ends what nobody needs any more, every five minutes. Unpause it with your payers."""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_ephemeral_ec2.operators.reap import EphemeralEC2ReapOperator

with DAG(
    "ephemeral_ec2_reaper",
    schedule=timedelta(minutes=5),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["ephemeral-ec2"],
) as dag:
    EphemeralEC2ReapOperator(task_id="reap", waiting_longer_than=timedelta(hours=2))
