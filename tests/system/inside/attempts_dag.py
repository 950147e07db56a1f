"""The DAG file of the attempts: one DAG for each case of ``cases.json``, on Airflow 2 and 3."""

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

HERE = Path(__file__).parent


class JobOfAnotherEnvironment(EphemeralEC2Operator):
    """A job whose queue has no controller but the worker's own."""

    def __init__(self, *, environment, **kwargs):
        super().__init__(**kwargs)
        self.environment = environment

    def execute(self, context):
        os.environ["AIRFLOW__EPHEMERAL_EC2__ENVIRONMENT"] = self.environment
        return super().execute(context)


class Nothing(BaseOperator):
    """Another task of the run."""

    def execute(self, context):
        return None


def make_dag(case):
    with DAG(
        f"case_{case['name']}",
        schedule="@daily",
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017
        catchup=False,
        max_active_runs=1,
    ) as dag:
        kind = JobOfAnotherEnvironment if case["environment"] else EphemeralEC2Operator
        more = {"environment": case["environment"]} if case["environment"] else {}
        kind(
            task_id="job",
            payer="tess",
            job=case["name"],
            config_table=str(HERE / "attempts.yaml"),
            deferrable=case["deferrable"],
            retries=case["retries"],
            retry_delay=timedelta(seconds=case["retry_delay"]),
            **more,
        )
        if case["has_other_task"]:
            Nothing(task_id="other")
    return dag


for one in json.loads((HERE / "cases.json").read_text(encoding="utf-8")):
    made = make_dag(one)
    globals()[made.dag_id] = made
