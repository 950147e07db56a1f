"""The DAG file of the alerts: payers whose jobs go wrong, and the reaper, all of which tell."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, BaseNotifier

from airflow_ephemeral_ec2 import payer_dags
from airflow_ephemeral_ec2.notifications.alerts import Alerts
from airflow_ephemeral_ec2.operators.reap import EphemeralEC2ReapOperator

HERE = Path(__file__).parent


class Postbox(BaseNotifier):
    """Writes what a mail would say, rendered by Airflow, one line a mail."""

    template_fields = ("text",)

    def __init__(self, text="{{ ephemeral_ec2 | tojson }}"):
        super().__init__()
        self.text = text

    def notify(self, context):
        with (HERE.parent / "alerts.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"{self.text}\n")


postbox = Postbox()
globals().update(payer_dags(HERE / "alerts.yaml", alerts=Alerts(postbox, postbox)))
with DAG(
    "alerting_reaper",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),  # noqa: UP017
):
    EphemeralEC2ReapOperator(
        task_id="reap",
        waiting_longer_than=timedelta(seconds=1),
        on_waiting=[postbox],
        on_orphan=[postbox],
        on_quota=[postbox],
    )
