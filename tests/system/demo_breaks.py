"""Four real ways to break the demo, to see the checker find each.

``order`` and ``exit`` change the demo's own copy of table and jobs before anything runs;
``double`` and ``orphan`` act on the local EC2 after the DAG runs, behind the engine's back.
"""

import base64
import re
import time
import uuid

from tests.system.demo_stage import DATA_BUCKET

BREAKS = ("order", "double", "orphan", "exit")
_OURS = "ephemeral-ec2:"


def break_stage(kind, dags):
    """Break the copy of table and jobs; returns a line that says how."""
    if kind == "order":
        _edit(dags / "payers.yaml", r",?\s*depends_on: \[\w+\]", "")
        return "BREAK=order: depends_on taken out of the table"
    if kind == "exit":
        _edit(dags / "jobs" / "endings.py", r"BROKEN_INPUT(.*)= 65,", r"BROKEN_INPUT\1= 0,")
        return "BREAK=exit: the jobs call broken input a success"
    return None


def break_cloud(kind, cloud, engine):
    """Break the running cloud; returns a line that says how."""
    if kind == "double":
        return _run_again(cloud, engine)
    if kind == "orphan":
        return _leave_orphan(cloud, engine)
    return None


def _edit(path, pattern, replacement):
    before = path.read_text(encoding="utf-8")
    after, count = re.subn(pattern, replacement, before)
    if not count:
        message = f"nothing to break in {path}: {pattern}"
        raise ValueError(message)
    path.write_text(after, encoding="utf-8")


def _run_again(cloud, engine):
    """Launch acme/member a second time, with its start lock stolen back."""
    ec2, s3 = cloud.client("ec2"), cloud.client("s3")
    first = _find(ec2, payer="acme", job="member")
    jobkey = _tags(first)[f"{_OURS}jobkey"]
    listed = s3.list_objects_v2(
        Bucket=engine.bucket, Prefix=f"{engine.environment}/jobs/{jobkey}/"
    )["Contents"]
    for item in listed:
        if "/start-lock-" in item["Key"]:
            s3.delete_object(Bucket=engine.bucket, Key=item["Key"])
    again = _launch(ec2, first, _user_data(ec2, first), _tags(first))
    _wait(lambda: cloud.instances().get(again) == "terminated", 60)
    return f"BREAK=double: acme/member launched again as {again}"


def _leave_orphan(cloud, engine):
    """Launch a machine with the environment's tag that never ends."""
    ec2 = cloud.client("ec2")
    script = b"#!/bin/sh\nwhile :; do sleep 1; done\n"
    tags = {f"{_OURS}environment": engine.environment, "Name": "orphan"}
    orphan = _launch(ec2, _find(ec2, payer="acme", job="member"), script, tags)
    _wait(lambda: cloud.instances().get(orphan) == "running", 30)
    time.sleep(1)
    return f"BREAK=orphan: {orphan} launched, and nobody will end it"


def _find(ec2, **wanted):
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = _tags(instance)
            if all(tags.get(_OURS + name) == value for name, value in wanted.items()):
                return instance
    message = f"no instance of {wanted}"
    raise LookupError(message)


def _tags(instance):
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}


def _user_data(ec2, instance):
    found = ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
    return base64.b64decode(found["UserData"]["Value"])


def _launch(ec2, like, user_data, tags):
    tagged = [{"Key": key, "Value": value} for key, value in tags.items()]
    answer = ec2.run_instances(
        ImageId=like["ImageId"],
        InstanceType=like["InstanceType"],
        MinCount=1,
        MaxCount=1,
        ClientToken=uuid.uuid4().hex,
        UserData=user_data,
        IamInstanceProfile={"Name": like_profile(like)},
        InstanceInitiatedShutdownBehavior="terminate",
        SubnetId=like.get("SubnetId", "subnet-0a1"),
        TagSpecifications=[{"ResourceType": "instance", "Tags": tagged}],
    )
    return answer["Instances"][0]["InstanceId"]


def like_profile(instance):
    """Name of an instance's profile; a terminated one may have lost it."""
    arn = instance.get("IamInstanceProfile", {}).get("Arn", "payer-machine")
    return arn.rpartition("/")[2]


def _wait(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"{DATA_BUCKET}: nothing happened within {seconds}s"
            raise TimeoutError(message)
        time.sleep(0.1)
