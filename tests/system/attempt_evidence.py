"""What came of the attempts: read from the local EC2's API log and from the bucket, nobody asked."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One instance, as the API log has it at last."""

    attempt: int
    token: str
    state: str


def machines_by_job(cloud):
    """Return {job: {instance id: Machine}}."""
    found = {}
    for line in cloud.lines():
        if line.get("event") == "state":
            tags = line["tags"]
            mine = found.setdefault(tags.get("ephemeral-ec2:job", ""), {})
            mine[line["instance_id"]] = Machine(
                int(tags.get("ephemeral-ec2:attempt", 0)), line["client_token"], line["state"]
            )
    return found


def living_machines(cloud):
    """Return the ids of all instances that are not terminated."""
    return tuple(one for one, state in cloud.instances().items() if state != "terminated")


def read_queue(s3, bucket, environment):
    """Return the keys of what is still in the queue."""
    found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{environment}/queue/")
    return tuple(item["Key"] for item in found.get("Contents", ()))


def read_attempts(s3, bucket):
    """Return {(job, jobkey): outcome of each attempt in order}; ``open`` where there is none yet."""
    found = {}
    pages = s3.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=bucket):
        for item in page.get("Contents", ()):
            key = item["Key"]
            if "/jobs/" in key and key.endswith(("/launch.json", "/outcome.json")):
                body = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
                job = body["spec"]["job"] if key.endswith("/launch.json") else body["job"]
                attempts = found.setdefault((job, key.split("/jobs/")[1].split("/")[0]), {})
                attempts.setdefault(body["attempt"], "open")
                if key.endswith("/outcome.json"):
                    attempts[body["attempt"]] = body["outcome"]
    return {one: [attempts[n] for n in sorted(attempts)] for one, attempts in found.items()}
