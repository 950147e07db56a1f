"""Where the checker's evidence comes from: API log, process table, counters in the bucket."""

import json
import os
import tempfile
from pathlib import Path

from tests.system.checker import Count, Instance

INSTANCE_MARK = "EPHEMERAL_EC2_LOCAL_INSTANCE"
"""In the environment of every process of an instance of the local EC2."""


def read_log(path):
    """Return the API log's lines; a line that is still being written is left out."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def instances_of(lines):
    """Fold the log's state changes into one fact per instance."""
    found = {}
    for line in lines:
        if line.get("event") != "state":
            continue
        known = found.get(line["instance_id"])
        tags = line.get("tags", {})
        found[line["instance_id"]] = Instance(
            instance_id=line["instance_id"],
            payer=tags.get("ephemeral-ec2:payer", ""),
            job=tags.get("ephemeral-ec2:job", ""),
            launched=known.launched if known else line["t"],
            last_state=line["state"],
        )
    return tuple(found.values())


def counts_of(lines, counters):
    """Put the counters' words and the log's times together.

    ``counters`` is {key: body}, as the jobs wrote it. A counter that the API log does not know
    cannot be: KeyError.
    """
    written = {}
    for line in lines:
        if line.get("action") == "PutObject" and line["status"] == 200:
            written.setdefault(line["params"].get("Key"), line["t"])
    return tuple(
        Count(
            payer=body["payer"],
            job=body["job"],
            phase=body["phase"],
            run=body["run"],
            at=written[key],
            exit_code=body.get("exit_code"),
        )
        for key, body in counters.items()
    )


def read_counters(s3, bucket, business_date):
    """List and read what the jobs counted; ``s3`` is a plain boto3 client."""
    found = {}
    pages = s3.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=bucket, Prefix="payers/"):
        for item in page.get("Contents", ()):
            if f"/_runs/{business_date}/" in item["Key"]:
                body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                found[item["Key"]] = json.loads(body)
    return found


def instance_processes(instance_ids):
    """List the processes of these instances that are alive: ``pid command``."""
    marks = {f"{INSTANCE_MARK}={one}" for one in instance_ids}
    ids = set(instance_ids)
    return _processes(lambda words, cwd: bool(marks & words) or bool(ids & set(cwd.parts)))


def demo_processes(home):
    """List the living processes that belong to an Airflow or a local EC2 below ``home``."""
    mark = f"AIRFLOW_HOME={home}"
    return _processes(
        lambda words, cwd: any(word.startswith(mark) for word in words) or home in cwd.parents
    )


def instance_folders(instance_ids, home):
    """List the folders of these instances that still exist."""
    roots = [Path(home) / "instances", *Path(tempfile.gettempdir()).glob("ephemeral-ec2-*")]
    return tuple(str(root / one) for root in roots for one in instance_ids if (root / one).exists())


def _processes(belongs):
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            cwd = (entry / "cwd").readlink()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended, or belongs to somebody else
        if belongs(set(words), cwd):
            found.append(f"{entry.name} {command.strip()[:120]}")
    return tuple(found)
