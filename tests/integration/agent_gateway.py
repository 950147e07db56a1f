"""A network that misbehaves: an HTTP gateway before moto, with rules that tests set."""

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Rule:
    """What happens to requests that it matches, ``times`` times."""

    matches: Callable[[str, str], bool]
    status: int = 0
    """Answer this instead of asking moto; 0 asks moto."""
    body: bytes = b""
    lose_answer: bool = False
    """Close the connection instead of answering, after moto did the work."""
    times: int = 1 << 30


class Gateway(ThreadingHTTPServer):
    """Forwards to moto, unless a rule says otherwise."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.rules: list[Rule] = []
        self.asked: list[tuple[str, str]] = []
        self.skew = 0.0
        """Seconds by which this side's clock is ahead; requests 15 minutes off are refused."""
        self.answers: Callable[[str, str, bytes], bytes | None] = lambda *_: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def rule_for(self, method: str, path: str) -> Rule | None:
        for rule in self.rules:
            if rule.times > 0 and rule.matches(method, path):
                rule.times -= 1
                return rule
        return None

    def handle_error(self, *_: object) -> None:
        """Clients that went away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        self._handle()

    do_GET = do_POST = do_PUT  # noqa: N815 - names of the base class

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path))
        rule = self.server.rule_for(self.command, self.path)
        own = self.server.answers(self.command, self.path, body)
        if self._is_skewed():
            self._send(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")
        elif rule and rule.status:
            self._send(rule.status, rule.body)
        elif own is not None:
            self._send(200, own)
        else:
            status, answer = self._forward(body)
            if rule and rule.lose_answer:
                self.close_connection = True
                return
            self._send(status, answer)

    def _is_skewed(self) -> bool:
        if not self.server.skew:
            return False
        asked = datetime.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return abs(asked.timestamp() - time.time() - self.server.skew) > 900

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        target = self.server.target
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=20)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.server.skew, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
