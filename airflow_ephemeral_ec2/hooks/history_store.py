"""What was asked for and what has come of it, by payer, job and business date."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.bucket import Bucket, read_json
from airflow_ephemeral_ec2.model.identity import entry_name
from airflow_ephemeral_ec2.model.order import (
    DatedJob,
    DatedKey,
    History,
    StaleMark,
    parse_history,
)
from airflow_ephemeral_ec2.model.outcome import Outcome

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.record import OutcomeRecord

log = logging.getLogger(__name__)
WRITTEN_SLACK_SECONDS = 10.0
"""S3 says in whole seconds when it got an object; the bucket's clock is off by no more than this."""
_DATED = re.compile(r"([0-9A-Za-z-]+)(?:\.([0-9]{1,9})of([0-9]{1,9}))?")


class HistoryStore(Bucket):
    """The index by date and the history of one environment; nothing of it is ever overwritten."""

    environment: str

    # -- history -------------------------------------------------------------------------------

    def write_history(self, record: OutcomeRecord) -> None:
        """Write the one small record of a finished attempt; again is harmless."""
        day = record.business_date
        name = f"{entry_name(record.jobkey, record.attempt)}-{record.outcome}.json"
        key = f"{self.environment}/history/{record.payer}/{record.job}/{day}/{name}"
        self.write_new(key, record.model_dump_json(exclude={"result"}).encode())

    def read_history(self, key: DatedKey) -> History:
        """Read what has come of a job for a date, by the names of its records: one listing."""
        prefix = self._history_prefix(key)
        return parse_history(found.removeprefix(prefix) for found in self.list_keys(prefix))

    def find_success(self, key: DatedKey, since: float) -> float | None:
        """
        Find when the newest success of a job and date was recorded, by the bucket's clock.

        One listing; only the records that S3 got about ``since`` or later are read.

        :param since: seconds since 1970, bucket's clock
        :returns: the same; None: there is no success, or only older ones
        """
        prefix, found = self._history_prefix(key), []
        for name, written_at in self.list_times(prefix):
            finished = parse_history([name.removeprefix(prefix)]).finished
            is_success = any(one.outcome == Outcome.SUCCEEDED for one in finished)
            if is_success and written_at > since - WRITTEN_SLACK_SECONDS:
                times = read_json(self.read_document(name)).get("times")
                told = times.get("detected") if isinstance(times, dict) else None
                found.append(told if isinstance(told, int | float) else written_at)
        return max(found, default=None)

    def mark_stale(self, key: DatedKey, name: str, by: str) -> None:
        """
        Mark a success of a job and date: what it read has been written again.

        :param by: the attempt, or the jobs, that did so, for people
        """
        body = json.dumps({"by": by, "at": self.clock.now()}).encode()
        self.write_new(self._stale_key(key, name), body)

    def read_stale_mark(self, key: DatedKey, name: str) -> StaleMark | None:
        """Read why the success of an attempt is stale; None: it is not."""
        body = self.read_document(self._stale_key(key, name))
        if body is None:
            return None
        found = read_json(body)
        by, at = found.get("by") or "something unknown", found.get("at")
        return StaleMark(str(by), float(at) if isinstance(at, int | float) else None)

    def _stale_key(self, key: DatedKey, name: str) -> str:
        return f"{self._history_prefix(key)}{name}.stale.json"

    def _history_prefix(self, key: DatedKey) -> str:
        return f"{self.environment}/history/{key.payer}/{key.job}/{key.business_date}/"

    # -- by date ---------------------------------------------------------------------------

    def write_date_index(self, record: LaunchRecord) -> None:
        """Let the sensor find the job by payer, job and business date."""
        spec = record.spec
        # Only the parts of an array need to say which part they are.
        part = f".{record.array_index}of{spec.array_size}" if spec.array_size > 1 else ""
        prefix = self._date_prefix(spec.payer, spec.job, record.business_date)
        key = f"{prefix}{record.jobkey}{part}"
        body = {"jobkey": record.jobkey, "requested_at": record.requested_at}
        self.write_new(key, json.dumps(body).encode())

    def find_by_date(self, payer: str, job: str, business_date: str) -> tuple[DatedJob, ...]:
        """Return what was asked for, for one payer, job and business date."""
        prefix = self._date_prefix(payer, job, business_date)
        found = []
        for key in self.list_keys(prefix):
            match = _DATED.fullmatch(key.removeprefix(prefix))
            if match is None:
                log.warning("s3://%s/%s is not ours; passed over", self.bucket, key)
                continue
            jobkey, index, size = match.groups()
            found.append(DatedJob(jobkey, int(index or 0), int(size or 1)))
        return tuple(found)

    def list_dates(self, payer: str, job: str) -> tuple[str, ...]:
        """Return the business dates for which a job was asked for."""
        prefix = f"{self.environment}/by-date/{payer}/{job}/"
        return tuple(self.list_folders(prefix))

    def _date_prefix(self, payer: str, job: str, business_date: str) -> str:
        return f"{self.environment}/by-date/{payer}/{job}/{business_date}/"
