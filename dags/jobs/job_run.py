"""Run one job: read its environment, count the run, keep its numbers, end with a code."""

import json
import os
import sys
from pathlib import Path

from data_bucket import DataBucket, s3_client
from endings import BadEnvironment, describe, exit_code_of
from run_counter import RunCounter


def run(job, work):
    """Do ``work(bucket)`` and return the process's exit code.

    ``work`` returns counts by name. They are printed, one line each, and left as JSON at
    ``EPHEMERAL_RESULT_PATH``; neither holds anything about a person.
    """
    counter = None
    try:
        payer, date, name = _needed("EPHEMERAL_PAYER", "EPHEMERAL_BUSINESS_DATE", "DATA_BUCKET")
        client = s3_client()
        counter = RunCounter(client, payer=payer, job=job, date=date)
        counter.started()
        counts = work(DataBucket(client, name=name, payer=payer, date=date))
        _keep(counts)
        for what, count in counts.items():
            progress(job, f"{what} {count}")
        code = 0
    except Exception as error:  # noqa: BLE001 (every ending has a code, and no traceback may leak)
        code = exit_code_of(error)
        print(f"{job}: {describe(error)}", file=sys.stderr, flush=True)
    return _counted(job, counter, code)


def progress(job, line):
    print(f"{job}: {line}", flush=True)


def _counted(job, counter, code):
    try:
        if counter:
            counter.ended(code)
    except Exception as error:  # noqa: BLE001 (the work's own ending matters more)
        print(f"{job}: end not counted: {describe(error)}", file=sys.stderr, flush=True)
    return code


def _needed(*names):
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        message = f"not set: {', '.join(missing)}"
        raise BadEnvironment(message)
    return [os.environ[name] for name in names]


def _keep(counts):
    path = os.environ.get("EPHEMERAL_RESULT_PATH")
    if path:
        Path(path).write_text(json.dumps(counts, sort_keys=True), encoding="utf-8")
