"""One HTTP request, and patience. Proxies of the environment never apply."""

from __future__ import annotations

import errno
import http.client
import os
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from airflow_ephemeral_ec2.agent.failure import Failure, Transient
from airflow_ephemeral_ec2.contract import ERROR_NETWORK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, BinaryIO, TypeVar

    T = TypeVar("T")

BLOCK = 1 << 20
MAX_DELAY = 10.0
SMALL = 1 << 16
"""Bytes of an answer that is not meant for a file."""


class Answer(NamedTuple):
    """What the other side said."""

    status: int
    date: str | None
    body: bytes


class Transport:
    """HTTP and HTTPS without a proxy; TLS is loaded once, and only if it is used."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self._tls: Any = None

    def prepare(self, url: str) -> None:
        """Load certificates now: later the disk may be full or gone."""
        if url.startswith("https") and not self._tls:
            import ssl  # noqa: PLC0415 - 15 ms that plain HTTP need not pay

            self._tls = ssl.create_default_context()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        sink: BinaryIO | None = None,
    ) -> Answer:
        """Ask once. The body of a 200 goes to ``sink`` if there is one.

        Raises:
            Transient: there was no complete answer.

        """
        self.prepare(url)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self._tls)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self.timeout)
        )
        try:
            connection.request(method, parts.path or "/", body or None, dict(headers))
            response = connection.getresponse()
            status, date = response.status, response.getheader("Date")
            if sink is None or status != 200:
                return Answer(status, date, response.read(SMALL))
            while block := response.read(BLOCK):
                sink.write(block)
            if response.length:
                raise Transient(f"{host} closed the connection too early")
        except (http.client.HTTPException, OSError) as e:
            if getattr(e, "errno", None) == errno.ENOSPC:
                raise  # not of the network, but of the file that the answer goes to
            raise Transient(f"{host}: {type(e).__name__}: {e}") from e
        finally:
            connection.close()
        return Answer(status, date, b"")


def patiently(
    attempt: Callable[[], T],
    patience: float,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> T:
    """Ask until there is an answer, with growing, jittered pauses.

    Raises:
        Failure: no answer within ``patience`` seconds.

    """
    end, delay = monotonic() + patience, 0.2
    while True:
        try:
            return attempt()
        except Transient as e:
            if monotonic() + delay > end:
                raise Failure(ERROR_NETWORK, f"no answer for {patience:.0f}s: {e}") from e
        sleep(delay * (0.5 + os.urandom(1)[0] / 510))
        delay = min(delay * 2, MAX_DELAY)
