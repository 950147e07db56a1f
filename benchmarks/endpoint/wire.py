"""HTTP/1.1 as botocore and aiohttp speak it: keep-alive, Content-Length, Expect: 100-continue."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REASONS = {200: "OK", 204: "No Content"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Request:
    """One request; names of headers in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml"
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length of an answer without a body (HEAD)."""


class HttpProtocol(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer
        self._buffer = bytearray()
        self._has_continued = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._take()) is not None:
            assert self._transport is not None  # noqa: S101 - set before data comes
            self._transport.write(render(self._answer(request)))

    def _take(self) -> Request | None:
        """Take one whole request off the buffer."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        size, begin = int(headers.get("content-length", "0")), end + 4
        if len(self._buffer) < begin + size:
            if headers.get("expect") == "100-continue" and not self._has_continued:
                self._has_continued = True
                assert self._transport is not None  # noqa: S101 - set before data comes
                self._transport.write(CONTINUE)
            return None
        self._has_continued = False
        body = bytes(self._buffer[begin : begin + size])
        del self._buffer[: begin + size]
        method, target, _ = lines[0].split(" ", 2)
        path, _, query = target.partition("?")
        return Request(method, unquote(path), query, headers, body)


_date = (0, "")


def http_date() -> str:
    """Return the time as HTTP writes it, made once a second."""
    global _date  # noqa: PLW0603 - one clock
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def render(response: Response) -> bytes:
    size = len(response.body) if response.length is None else response.length
    head = (
        f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Error')}\r\n"
        f"Date: {http_date()}\r\nContent-Length: {size}\r\n"
        f"Content-Type: {response.content_type}\r\nx-amzn-RequestId: 0-0\r\n"
    )
    head += "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    return head.encode("latin-1") + b"\r\n" + response.body
