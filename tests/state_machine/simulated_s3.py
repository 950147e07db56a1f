"""One bucket in memory: the S3 calls of ``hooks/bucket.py`` and ``hooks/job_store.py``."""

import hashlib
import io
import threading
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

from botocore.exceptions import ClientError


def s3_error(code, status, operation):
    response = {"Error": {"Code": code, "Message": "no"}}
    return ClientError(response | {"ResponseMetadata": {"HTTPStatusCode": status}}, operation)


class SimulatedS3:
    """
    Strongly consistent, with conditional writes.

    Source: S3 user guide, "Conditional requests": If-None-Match fails with 412 when the key exists,
    If-Match with 412 when the ETag differs and with 404 when there is no object.

    :param watch: told of every change: ``watch(key, old body or None, new body or None)``
    """

    def __init__(self, clock, watch):
        self._clock, self._watch = clock, watch
        self._lock = threading.RLock()
        self.objects: dict[str, bytes] = {}
        self._written: dict[str, str] = {}

    def get_object(self, *, Bucket, Key):  # noqa: N803 - boto3's names
        body = self.objects.get(Key)
        if body is None:
            raise s3_error("NoSuchKey", 404, "GetObject")
        return self._answer(Body=io.BytesIO(body), ETag=_etag(body), ContentLength=len(body))

    def head_object(self, *, Bucket, Key):  # noqa: N803
        if Key not in self.objects:
            raise s3_error("404", 404, "HeadObject")
        return self._answer(ETag=_etag(self.objects[Key]))

    def put_object(
        self,
        *,
        Bucket,  # noqa: N803
        Key,  # noqa: N803
        Body,  # noqa: N803
        IfNoneMatch=None,  # noqa: N803
        IfMatch=None,  # noqa: N803
        **_facts,
    ):
        with self._lock:
            found = self.objects.get(Key)
            if IfMatch is not None and found is None:
                raise s3_error("NoSuchKey", 404, "PutObject")
            is_other = IfMatch is not None and _etag(found or b"") != IfMatch
            if is_other or (IfNoneMatch == "*" and found is not None):
                raise s3_error("PreconditionFailed", 412, "PutObject")
            self._watch(Key, found, Body)
            self.objects[Key] = Body
            self._written[Key] = self._date
            return self._answer(ETag=_etag(Body))

    def delete_object(self, *, Bucket, Key):  # noqa: N803
        self._watch(Key, self.objects.get(Key), None)
        self.objects.pop(Key, None)
        return self._answer()

    def list_objects_v2(self, *, Bucket, Prefix, Delimiter=None):  # noqa: N803
        found = sorted(key for key in list(self.objects) if key.startswith(Prefix))
        if Delimiter is None:
            return self._answer(Contents=[self._describe(key) for key in found])
        parts = {key: key.removeprefix(Prefix).partition(Delimiter) for key in found}
        folders = sorted({f"{Prefix}{name}{end}" for name, end, _ in parts.values() if end})
        plain = [key for key, (_, end, _) in parts.items() if not end]
        return self._answer(
            Contents=[self._describe(key) for key in plain],
            CommonPrefixes=[{"Prefix": folder} for folder in folders],
        )

    def get_paginator(self, operation):
        """Everything is one page."""
        call = getattr(self, operation)
        return SimpleNamespace(paginate=lambda **request: iter([call(**request)]))

    @property
    def _date(self):
        return self._clock.metadata["HTTPHeaders"]["date"]

    def _describe(self, key):
        at = parsedate_to_datetime(self._written.get(key, self._date))
        return {"Key": key, "LastModified": at}

    def _answer(self, **fields):
        return {"ResponseMetadata": self._clock.metadata} | fields


def _etag(body):
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
