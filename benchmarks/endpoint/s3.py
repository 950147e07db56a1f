"""S3 with the parts that decide: conditional writes, ETags, listings of 1,000 keys."""

from __future__ import annotations

import bisect
import hashlib
import time
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from benchmarks.endpoint.wire import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = 1_000
XML = '<?xml version="1.0" encoding="UTF-8"?>'


class FakeS3:
    """One bucket in memory: key -> (body, ETag, time of the write)."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._objects: dict[str, tuple[bytes, str, float]] = {}
        self._keys: list[str] = []
        self.keys_read: set[str] = set()
        """Keys that somebody has asked for, there or not."""

    def put(self, key: str, body: bytes) -> str:
        """Write an object and return its ETag."""
        etag = '"' + hashlib.md5(body, usedforsecurity=False).hexdigest() + '"'
        if key not in self._objects:
            bisect.insort(self._keys, key)
        self._objects[key] = (body, etag, time.time())
        return etag

    @staticmethod
    def action_of(request: Request) -> str:
        """Name the API action of a request."""
        _, _, key = request.path.lstrip("/").partition("/")
        if not key:
            return {"GET": "ListObjectsV2", "HEAD": "HeadBucket"}.get(request.method, "OtherBucket")
        names = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject"}
        return names.get(request.method, "DeleteObject")

    def answer(self, action: str, request: Request) -> Response:
        bucket, _, key = request.path.lstrip("/").partition("/")
        if bucket != self._bucket:
            return _error(404, "NoSuchBucket", "The specified bucket does not exist")
        match action:
            case "PutObject":
                return self._put(key, request)
            case "GetObject" | "HeadObject":
                return self._get(key, has_body=action == "GetObject")
            case "DeleteObject":
                if request.method != "DELETE":
                    return _error(501, "NotImplemented", request.method)
                return self._delete(key)
            case "ListObjectsV2":
                return self._list(dict(parse_qsl(request.query, keep_blank_values=True)))
            case "HeadBucket":
                return Response(200)
        return _error(501, "NotImplemented", action)

    def _put(self, key: str, request: Request) -> Response:
        if "aws-chunked" in request.headers.get("content-encoding", ""):
            return _error(501, "NotImplemented", "aws-chunked")
        found = self._objects.get(key)
        if request.headers.get("if-none-match") == "*" and found:
            return _precondition_failed()
        wanted = request.headers.get("if-match")
        if wanted is not None:
            if found is None:
                return _error(404, "NoSuchKey", "The specified key does not exist.")
            if found[1].strip('"') != wanted.strip('"'):
                return _precondition_failed()
        return Response(200, headers={"ETag": self.put(key, request.body)})

    def _get(self, key: str, *, has_body: bool) -> Response:
        found = self._objects.get(key)
        self.keys_read.add(key)
        if found is None:
            missing = _error(404, "NoSuchKey", "The specified key does not exist.")
            return missing if has_body else Response(404)
        body, etag, at = found
        headers = {"ETag": etag, "Last-Modified": formatdate(at, usegmt=True)}
        if not has_body:
            return Response(200, b"", "application/json", headers, length=len(body))
        return Response(200, body, "application/json", headers)

    def _delete(self, key: str) -> Response:
        if self._objects.pop(key, None) is not None:
            del self._keys[bisect.bisect_left(self._keys, key)]
        return Response(204)

    def _list(self, query: Mapping[str, str]) -> Response:
        if query.get("list-type") != "2" or query.get("delimiter"):
            return _error(501, "NotImplemented", "only ListObjectsV2 without delimiter")
        prefix, size = query.get("prefix", ""), min(int(query.get("max-keys", PAGE)), PAGE)
        after = query.get("continuation-token") or query.get("start-after") or ""
        at = bisect.bisect_right(self._keys, after) if after else 0
        at = max(at, bisect.bisect_left(self._keys, prefix))
        found = []
        while at < len(self._keys) and self._keys[at].startswith(prefix) and len(found) <= size:
            found.append(self._keys[at])
            at += 1
        is_cut, shown = len(found) > size, found[:size]
        return Response(200, self._render(prefix, shown, is_cut=is_cut).encode(), "application/xml")

    def _render(self, prefix: str, keys: list[str], *, is_cut: bool) -> str:
        # boto3 always asks for encoding-type=url, for ListObjectsV2.
        items = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>{escape(self._objects[key][1])}</ETag>"
            f"<Size>{len(self._objects[key][0])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys
        )
        token = f"<NextContinuationToken>{keys[-1]}</NextContinuationToken>" if is_cut else ""
        return (
            f'{XML}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{self._bucket}</Name><Prefix>{quote(prefix)}</Prefix><MaxKeys>{PAGE}</MaxKeys>"
            f"<KeyCount>{len(keys)}</KeyCount><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
        )


def _precondition_failed() -> Response:
    text = "At least one of the pre-conditions you specified did not hold"
    return _error(412, "PreconditionFailed", text)


def _error(status: int, code: str, message: str) -> Response:
    body = f"{XML}<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Response(status, body.encode(), "application/xml")
