"""The DAG file of the kills: one DAG for each path of ``paths.json``, on Airflow 2 and 3."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_ephemeral_ec2.operators.ec2 import EphemeralEC2Operator

HERE = Path(__file__).parent


class OperatorWithDeferralTimeout(EphemeralEC2Operator):
    """A user's operator that gives its deferral a timeout; the product's own gives it none."""

    def __init__(self, *, deferral_timeout, **kwargs):
        super().__init__(**kwargs)
        self.deferral_timeout = deferral_timeout

    def defer(self, *, trigger, method_name, kwargs=None, timeout=None):
        timeout = timedelta(seconds=self.deferral_timeout)
        super().defer(trigger=trigger, method_name=method_name, kwargs=kwargs, timeout=timeout)


def make_dag(path):
    limit = timedelta(seconds=path["seconds"])
    with DAG(
        f"kill_{path['name']}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017
        # Who is deferred does not count: so few start at a time, and the machine keeps up.
        max_active_tasks=2 if path["deferrable"] else 64,
        dagrun_timeout=limit if path["timeout"] == "dagrun" else None,
    ) as dag:
        kind = EphemeralEC2Operator
        more = {}
        if path["timeout"] == "deferral":
            kind, more = OperatorWithDeferralTimeout, {"deferral_timeout": path["seconds"]}
        for number in range(path["jobs"]):
            if path["timeout"] == "execution":
                pause = timedelta(seconds=path["pause"] * number)
                more = {"execution_timeout": limit + pause}
            kind(
                task_id=f"job-{number}",
                payer="tess",
                job=f"{path['name']}-{number}",
                config_table=str(HERE / "killing.yaml"),
                deferrable=path["deferrable"],
                retries=path["retries"],
                retry_delay=timedelta(seconds=1),
                **more,
            )
    return dag


for one in json.loads((HERE / "paths.json").read_text(encoding="utf-8")):
    made = make_dag(one)
    globals()[made.dag_id] = made
