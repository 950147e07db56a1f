"""Files that land in S3: what a message says, which objects count, for which business date."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote_plus

from pydantic import ValidationError

from airflow_ephemeral_ec2.model.spec import Spec

_PLACE = re.compile(r"s3://([^/]+)/((?:[^*?\[/]*/)*)([^/]*)")
# A day alone, or the day of a time stamp (20260301, 202603011230, 20260301123000).
_DAY = re.compile(
    r"(?<!\d)(20\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?(?!\d)"
)
UNFINISHED_SUFFIXES = (
    ".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".upload", ".uploading",
    ".writing", ".inprogress", ".swp", "~",
)  # fmt: skip
_WRAPPERS = 3
"""SNS in SQS is one; nobody wraps more often than this."""


class Verdict(StrEnum):
    """What becomes of an object that a message names; the words stand in the task's log."""

    TAKEN = "taken"
    DUPLICATE = "taken before"
    EMPTY = "zero bytes"
    ELSEWHERE = "not in files"
    UNFINISHED = "a name of an upload under way"
    NOT_CREATED = "an event of another kind"
    GONE = "deleted since"
    REPLACED = "replaced since"


@dataclass(frozen=True)
class Place:
    """``files`` of the table, taken apart."""

    bucket: str
    prefix: str
    """Ends in a slash, or is empty."""
    pattern: str
    """Glob of the name; ``*`` where none is written."""


@dataclass(frozen=True)
class LandedObject:
    """One object as an event tells of it."""

    bucket: str
    key: str
    size: int
    """Bytes."""
    etag: str
    """Without quotes."""
    version_id: str
    """Empty in a bucket without versions."""
    happened: str
    """When, ISO 8601."""
    is_creation: bool = True

    @property
    def digest(self) -> str:
        """
        Name these bytes under this key: every delivery of the event has the same one.

        With versions each upload counts for itself; without, the same bytes under the same key
        are the same file.
        """
        parts = (self.bucket, self.key, self.version_id or self.etag)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Message(Spec):
    """What is needed of an SQS message (``ReceiveMessage``)."""

    message_id: str
    receipt: str
    body: str


class Taken(Spec):
    """An object that a run takes; its key may hold PHI and is not written down."""

    digest: str
    business_date: str


class Taking(Spec):
    """What one run decided to take: written once, so that every retry takes the same."""

    version: int = 1
    objects: tuple[Taken, ...]
    receipts: tuple[str, ...] = ()
    """Messages to delete once the objects are recorded."""

    @property
    def dates(self) -> tuple[str, ...]:
        return tuple(sorted({one.business_date for one in self.objects}))


def parse_place(text: str) -> Place:
    """
    Take ``s3://bucket/folder/*.csv`` apart.

    :raises ValueError: not of that form
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        msg = f"{text!r}: write s3://bucket/folder/ or s3://bucket/folder/*.csv"
        raise ValueError(msg)
    bucket, prefix, pattern = found.groups()
    return Place(bucket, prefix, pattern or "*")


def read_messages(batch: object) -> tuple[Message, ...]:
    """Read ``message_batch`` of a trigger's event; what is no message is left out."""
    found = []
    for one in batch if isinstance(batch, list) else []:
        try:
            fields = {"message_id": one["MessageId"], "receipt": one["ReceiptHandle"]}
            found.append(Message(**fields, body=one.get("Body", "")))
        except (KeyError, TypeError, AttributeError, ValidationError):
            continue
    return tuple(found)


def read_events(body: str) -> tuple[LandedObject, ...] | None:
    """
    Read the objects of a message: from S3 itself, through SNS, or from EventBridge.

    :return: empty for ``s3:TestEvent``; None: not a message of S3
    (S3 user guide, "Event message structure"; EventBridge, "Amazon S3 events")
    """
    document: Any = body
    for _ in range(_WRAPPERS):
        try:
            document = json.loads(document)
        except (ValueError, TypeError, RecursionError):
            return None
        if not isinstance(document, Mapping) or not isinstance(document.get("Message"), str):
            break
        document = document["Message"]
    if not isinstance(document, Mapping):
        return None
    if document.get("Event") == "s3:TestEvent":
        return ()
    try:
        if isinstance(document.get("detail"), Mapping):
            return (_from_eventbridge(document),)
        return tuple(_from_record(record) for record in document["Records"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _from_record(record: Mapping[str, Any]) -> LandedObject:
    found = record["s3"]["object"]
    name = str(record["eventName"]).removeprefix("s3:")
    return LandedObject(
        bucket=str(record["s3"]["bucket"]["name"]),
        key=unquote_plus(str(found["key"])),
        size=int(found.get("size") or 0),
        etag=str(found.get("eTag", "")).strip('"'),
        version_id=_version(found.get("versionId")),
        happened=_moment(record["eventTime"]),
        is_creation=name.startswith("ObjectCreated:"),
    )


def _from_eventbridge(document: Mapping[str, Any]) -> LandedObject:
    found = document["detail"]["object"]
    return LandedObject(
        bucket=str(document["detail"]["bucket"]["name"]),
        key=str(found["key"]),  # here it is not encoded
        size=int(found.get("size") or 0),
        etag=str(found.get("etag", "")).strip('"'),
        version_id=_version(found.get("version-id")),
        happened=_moment(document["time"]),
        is_creation=document["detail-type"] == "Object Created",
    )


def _version(value: object) -> str:
    return "" if value in (None, "", "null") else str(value)


def _moment(text: object) -> str:
    return datetime.fromisoformat(str(text)).isoformat()


def judge_event(found: LandedObject, place: Place) -> Verdict:
    """Say what the event alone allows; TAKEN is still to be checked against S3 and the records."""
    if not found.is_creation:
        return Verdict.NOT_CREATED
    name = found.key.rpartition("/")[2]
    if found.bucket != place.bucket or not found.key.startswith(place.prefix):
        return Verdict.ELSEWHERE
    if _is_unfinished(found.key.removeprefix(place.prefix)):
        return Verdict.UNFINISHED
    if not name or not fnmatchcase(name, place.pattern):
        return Verdict.ELSEWHERE
    return Verdict.TAKEN if found.size > 0 else Verdict.EMPTY


def _is_unfinished(path: str) -> bool:
    """Whether a transfer program or Spark gives such names to what it has not finished."""
    folders, name = path.split("/")[:-1], path.rpartition("/")[2]
    if any(folder.startswith((".", "_temporary", "_tmp")) for folder in folders):
        return True
    return name.startswith((".", "~")) or name.lower().endswith(UNFINISHED_SUFFIXES)


@dataclass(frozen=True)
class StoredObject:
    """What S3 has under a key now."""

    size: int
    etag: str
    version_id: str


def judge_stored(found: LandedObject, now: StoredObject | None) -> Verdict:
    """Compare the event with what S3 has; a newer upload has an event of its own."""
    if now is None:
        return Verdict.GONE
    if found.version_id:
        is_same = now.version_id == found.version_id
    else:
        is_same = (now.etag, now.size) == (found.etag, found.size)
    if not is_same:
        return Verdict.REPLACED
    return Verdict.TAKEN if now.size > 0 else Verdict.EMPTY


def find_file_date(found: LandedObject) -> str:
    """
    Find the business date: in the name, else in the nearest folder, else the event's day (UTC).

    ``2026-03-01``, ``2026_03_01`` and ``20260301`` are dates, also at the front of a time stamp.
    The first one in a name counts.
    """
    for part in reversed(found.key.split("/")):
        for match in _DAY.finditer(part):
            year, _, month, day = match.groups()
            try:
                return str(date(int(year), int(month), int(day)))
            except ValueError:
                continue  # 30 February
    moment = datetime.fromisoformat(found.happened)
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return str(zoned.astimezone(UTC).date())


def describe_takings(counts: Mapping[Verdict, Sequence[str]]) -> Iterator[str]:
    """Say how many objects met which end, by their digests: a key may hold PHI."""
    for verdict, digests in counts.items():
        if digests:
            shown = ", ".join(digest[:12] for digest in digests[:10])
            more = f" and {len(digests) - 10} more" if len(digests) > 10 else ""
            what = "taken" if verdict is Verdict.TAKEN else f"not taken ({verdict})"
            yield f"{len(digests)} object{'s' * (len(digests) != 1)} {what}: {shown}{more}"
