"""Queue entries as tests want them."""

from airflow_ephemeral_ec2.model.queue import QueueEntry


def make_entry(jobkey: str, job: str = "claims", /, **changes) -> QueueEntry:
    fields = {
        "jobkey": jobkey,
        "attempt": 1,
        "nonce": "n",
        "payer": "acme",
        "job": job,
        "aws_conn_id": "aws_default",
        "region": "us-east-1",
        "account": "1234",
        "business_date": "2026-03-01",
        "priority": 500,
        "vcpus": 2,
        "capacity_type": "on-demand",
        "depends_on": (),
        "max_runtime": 60,
        "max_wait": None,
        "requested_at": 1.0,
        "supersedes": None,
        "table": "payers.yaml",
        "table_version": "v1",
    }
    fields |= changes
    fields.setdefault("title", f"{fields['payer']}/{job}")
    return QueueEntry.model_validate(fields)
