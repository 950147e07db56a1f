"""The job's credentials: its role, assumed by the machine, served on the loopback interface.

The job never sees the machine's own role. The SDKs' container credential provider
(``AWS_CONTAINER_CREDENTIALS_FULL_URI``) asks here and asks again before they expire.
"""

from __future__ import annotations

import hmac
import json
import re
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_ephemeral_ec2.agent.clock import from_iso
from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.agent.imds import NAMES
from airflow_ephemeral_ec2.contract import ERROR_INTERNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_ephemeral_ec2.agent.aws import Aws
    from airflow_ephemeral_ec2.agent.clock import Clock
    from airflow_ephemeral_ec2.agent.signer import Keys

ROLE_SECONDS = 3600
"""The most that AWS gives to a role assumed by a role."""
MARGIN = 900
"""SDKs begin to refresh 15 minutes before the end."""


class Renewed:
    """Credentials that are fetched again in time; an old one is used while it is valid."""

    def __init__(self, fetch: Callable[[], Keys], clock: Clock, margin: float = MARGIN) -> None:
        self.fetch, self.clock, self.margin = fetch, clock, margin
        self._keys: Keys | None = None
        self._fresh_until = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> Keys:
        with self._lock:
            now = self.clock.now()
            if self._keys is None or now >= self._fresh_until:
                try:
                    self._keys = self.fetch()
                except Failure:
                    if self._keys is None or now >= from_iso(self._keys["Expiration"]):
                        raise
                # Half of what is left keeps a short-lived key from being fetched at every call.
                left = from_iso(self._keys["Expiration"]) - self.clock.now()
                self._fresh_until = self.clock.now() + max(left / 2, left - self.margin, 1)
            return self._keys


def assume_role(aws: Aws, role: str, session: str, patience: float) -> Keys:
    """Ask STS for the credentials of ``role`` (an ARN).

    Raises:
        Failure: the machine's role may not assume it, or STS cannot be reached.

    """
    form = urlencode(
        {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": session,
            "DurationSeconds": ROLE_SECONDS,
        }
    ).encode()
    headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    answer = aws.ask("sts", "POST", aws.url("sts") + "/", headers, form, patience=patience)
    text = answer.body.decode().replace("SessionToken>", "Token>")
    names = "|".join(NAMES)
    found = dict(re.findall(f"<({names})>([^<]+)<", text))
    if len(found) < len(NAMES):
        raise Failure(ERROR_INTERNAL, "STS answered AssumeRole without credentials")
    return found


class CredentialServer:
    """Serves one path on 127.0.0.1 to whoever knows the token."""

    def __init__(self, keys: Callable[[], Keys], token: str) -> None:
        self.keys, self.token = keys, token
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/credentials"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(5)
                request = b""
                while b"\r\n\r\n" not in request and len(request) < 8192:
                    block = connection.recv(4096)
                    if not block:
                        return
                    request += block
                status, body = self._answer(request.decode("latin-1"))
                text = json.dumps(body)
                connection.sendall(
                    f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n"
                    f"Connection: close\r\n\r\n{text}".encode()
                )
            except OSError:
                return

    def _answer(self, request: str) -> tuple[str, Mapping[str, str]]:
        given = re.search(r"(?mi)^authorization:[ \t]*(\S+)", request)
        known = given and hmac.compare_digest(given.group(1), self.token)
        if not known or not request.startswith("GET /credentials "):
            return "403 Forbidden", {"message": "wrong path or token"}
        try:
            keys = self.keys()
        except Failure as e:
            return "503 Unavailable", {"message": e.message}
        return "200 OK", keys
