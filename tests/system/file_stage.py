"""The stage of the files: a payer whose DAG is started by files, and the counter of its jobs."""

import json
from collections import Counter
from pathlib import Path

from tests.system.attempt_stage import TABLE

LANDING = "landing"
QUEUE = "acme-files"
DAG_ID = "payer_acme"
COMMAND = """\
mktemp "$RUNS/$EPHEMERAL_JOB=$EPHEMERAL_BUSINESS_DATE=XXXXXXXX" >/dev/null || exit 9
"""
DAG_FILE = """\
from pathlib import Path
from airflow_ephemeral_ec2 import payer_dags
globals().update(payer_dags(Path(__file__).with_name("payers.yaml")))
"""


def lay_out(folder, runs, queue_url):
    """Make a DAGs folder of one payer with one job, started by files."""
    folder.mkdir(parents=True)
    runs.mkdir()
    runs.chmod(0o777)  # every instance is a user of its own
    defaults = TABLE["defaults"] | {
        "command": ["sh", "-c", COMMAND],
        "env": {"RUNS": str(runs)},
        "files": f"s3://{LANDING}/acme/*.csv",
        "files_queue": queue_url,
    }
    table = TABLE | {
        "defaults": defaults,
        "jobs": {"member": {}},
        "payers": {"acme": {}},
    }
    (folder / "payers.yaml").write_text(json.dumps(table, indent=1), encoding="utf-8")
    (folder / "files_dag.py").write_text(DAG_FILE, encoding="utf-8")


def count_work(runs):
    """Return {(job, business date): how often its work ran}."""
    return Counter(tuple(path.name.split("=")[:2]) for path in Path(runs).iterdir())


class Landing:
    """The payer's side: what is dropped, and what the queue still holds."""

    def __init__(self, cloud):
        self._s3, self._sqs = cloud.client("s3"), cloud.client("sqs")
        self.queue_url = self._sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]

    def drop(self, name, body=b"member_id\n1\n"):
        self._s3.put_object(Bucket=LANDING, Key=f"acme/{name}", Body=body)

    def drop_half(self, name):
        """Begin an upload in parts that never ends."""
        key = {"Bucket": LANDING, "Key": f"acme/{name}"}
        upload = self._s3.create_multipart_upload(**key)["UploadId"]
        self._s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=b"member_id\n")

    def deliver_again(self, name):
        """Send the event of a file once more, as SQS and S3 may."""
        found = self._s3.head_object(Bucket=LANDING, Key=f"acme/{name}")
        record = {
            "eventSource": "aws:s3",
            "eventTime": "2026-03-04T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": LANDING},
                "object": {
                    "key": f"acme/{name}",
                    "size": found["ContentLength"],
                    "eTag": found["ETag"].strip('"'),
                },
            },
        }
        body = json.dumps({"Records": [record]})
        self._sqs.send_message(QueueUrl=self.queue_url, MessageBody=body)

    def is_quiet(self):
        """Whether every message was dealt with and deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        return set(found["Attributes"].values()) == {"0"}
