"""The table at the end of the demo: from outcome records in the bucket and the API log."""

import json

HEADER = (
    "payer", "job", "asked", "given", "exit", "outcome", "seconds", "death to detection"
)  # fmt: skip


def read_outcomes(s3, bucket, environment):
    """Read every outcome record of the environment."""
    found = []
    pages = s3.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=bucket, Prefix=f"{environment}/jobs/"):
        for item in page.get("Contents", ()):
            if item["Key"].endswith("/outcome.json"):
                body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                found.append({**json.loads(body), "key": item["Key"]})
    return found


def detection_seconds(record, lines):
    """Seconds from the machine's death to the outcome record, both as the API log has them."""
    machine = (record.get("machine") or {}).get("instance_id")
    died = written = None
    for line in lines:
        if line.get("event") == "state" and line["instance_id"] == machine:
            died = line["t"] if line["state"] == "terminated" else died
        elif line.get("action") == "PutObject" and line["params"].get("Key") == record["key"]:
            written = line["t"]
    return None if died is None or written is None else max(written - died, 0.0)


def rows(records, lines, jobs):
    """One row per (payer, job) of ``jobs``, in their order; a job may have several attempts."""
    for payer, job in jobs:
        found = [one for one in records if (one["payer"], one["job"]) == (payer, job)]
        if not found:
            yield (payer, job, "", "", "", "never launched", "", "")
        for record in sorted(found, key=lambda one: one["attempt"]):
            machine = record.get("machine") or {}
            seen = detection_seconds(record, lines)
            yield (
                payer,
                job,
                record["asked"],
                machine.get("instance_type", ""),
                _text(record.get("exit_code")),
                record["outcome"],
                _text(record.get("seconds"), "{:.1f}"),
                _text(seen, "{:.1f}s"),
            )


def render(table):
    """Lay the rows out in columns."""
    lines = [HEADER, *table]
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEADER))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in lines]  # fmt: skip
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def _text(value, form="{}"):
    return "" if value is None else form.format(value)
