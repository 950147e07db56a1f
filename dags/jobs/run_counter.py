"""Write down that a run began and ended, for a checker that believes nobody's word.

``RUN_COUNTER`` names the place: ``s3://bucket/prefix`` or a folder. Below it lies one
object per start and one per end, none ever overwritten:
``<payer>/_runs/<date>/<job>/<start|end>-<attempt>-<run>.json``. When it happened is the object's
``LastModified``, the clock of S3; the ``clock`` inside is the machine's own.
"""

import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path


class RunCounter:
    """Counts one run; without ``RUN_COUNTER`` it counts nothing."""

    def __init__(self, client, *, payer, job, date):
        self._client = client
        self._place = os.environ.get("RUN_COUNTER", "")
        self._run = uuid.uuid4().hex
        self._record = {
            "payer": payer,
            "job": job,
            "date": date,
            "attempt": os.environ.get("EPHEMERAL_ATTEMPT", "1"),
            "array_index": os.environ.get("EPHEMERAL_ARRAY_INDEX", "0"),
            "jobkey": os.environ.get("EPHEMERAL_JOBKEY", ""),
            "run": self._run,
        }

    def started(self):
        self._write("start", {})

    def ended(self, exit_code):
        self._write("end", {"exit_code": exit_code})

    def _write(self, phase, more):
        if not self._place:
            return
        of = self._record
        name = f"{phase}-{of['attempt']}-{self._run}.json"
        path = f"{of['payer']}/_runs/{of['date']}/{of['job']}/{name}"
        record = {**of, **more, "phase": phase, "clock": datetime.now(UTC).isoformat()}
        body = json.dumps(record, sort_keys=True).encode()
        if self._place.startswith("s3://"):
            bucket, _, prefix = self._place.removeprefix("s3://").partition("/")
            key = f"{prefix.rstrip('/')}/{path}".lstrip("/")
            self._client.put_object(Bucket=bucket, Key=key, Body=body)
        else:
            file = Path(self._place, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
