"""The demo's own jobs stay within the number that the project holds itself to."""

import base64
from pathlib import Path

from airflow_ephemeral_ec2.config_table import load_table
from airflow_ephemeral_ec2.hooks.preview import preview_launch
from airflow_ephemeral_ec2.model.spec import LockFile

TABLE = Path(__file__).parents[2] / "dags" / "payers.yaml"


def test_the_demos_jobs_need_at_most_12_000_bytes_of_user_data():
    sizes = {}
    for spec in load_table(TABLE).specs:
        record = preview_launch(
            spec,
            LockFile(),
            environment="demo",
            bucket="ephemeral-ec2-state",
            business_date="2026-03-01",
            code_sha256="c3" * 32,
            table_version="t",
        ).record
        sizes[f"{spec.payer}/{spec.job}"] = len(base64.b64decode(record.user_data))

    assert len(sizes) == 12
    assert {name: size for name, size in sizes.items() if size > 12_000} == {}
