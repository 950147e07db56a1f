"""Links from a task to its machine and its records in the AWS console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_ephemeral_ec2.model.task_context import PLACE_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


def instance_url(place: dict[str, Any]) -> str:
    """Show the machine by its tag: works before its id is known, and while the task waits."""
    region = place["region"]
    query = f"#Instances:tag:ephemeral-ec2:jobkey={quote(place['jobkey'])}"
    return f"https://{region}.console.aws.amazon.com/ec2/home?region={region}{query}"


def log_url(place: dict[str, Any]) -> str:
    """Show the job's log in the bucket, or the attempt's records while there is no machine."""
    log = place.get("log")
    prefix = (
        log.split("/", 3)[3]
        if log
        else f"{place['environment']}/jobs/{place['jobkey']}/a{place['attempt']}/"
    )
    return (
        f"https://{place['bucket_region']}.console.aws.amazon.com/s3/buckets/"
        f"{place['bucket']}?prefix={quote(prefix)}"
    )


def _read_place(ti_key: TaskInstanceKey) -> dict[str, Any] | None:
    place = XCom.get_value(key=PLACE_KEY, ti_key=ti_key)
    return place if isinstance(place, dict) else None


class EphemeralEC2InstanceLink(BaseOperatorLink):
    """The machine in the EC2 console."""

    name = "EC2 instance"
    key = PLACE_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Derive the URL from the XCom: the operator object is another one after a deferral."""
        place = _read_place(ti_key)
        return instance_url(place) if place else ""


class EphemeralEC2LogLink(BaseOperatorLink):
    """The job's log in the S3 console."""

    name = "Job log"
    key = PLACE_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Derive the URL from the XCom, and from the outcome once there is one."""
        place = _read_place(ti_key)
        if not place:
            return ""
        outcome = XCom.get_value(key="return_value", ti_key=ti_key)
        log = outcome.get("log") if isinstance(outcome, dict) else None
        return log_url(place | {"log": log})
