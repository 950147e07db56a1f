"""
The instance metadata service (version 2 only): one port per instance, one thread for all.

Source: EC2 User Guide, "Use the Instance Metadata Service to access instance metadata". Credentials
are renewed five minutes before they expire (half of their life, when that is shorter).
"""

import json
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from secrets import token_urlsafe

from airflow_ephemeral_ec2.local.harms import Condition
from airflow_ephemeral_ec2.local.sessions import Session, SessionBook

_TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
_CREDENTIALS = "iam/security-credentials/"


@dataclass
class Metadata:
    """What one instance may ask about itself."""

    instance_id: str
    instance_arn: str
    instance_type: str
    image_id: str
    region: str
    zone: str
    account: str
    private_ip: str
    architecture: str
    launched_at: datetime
    user_data: bytes
    role_arn: str = ""
    profile_arn: str = ""
    is_spot: bool = False
    spot_action_at: datetime | None = None
    enabled: bool = True
    sessions: SessionBook = field(default_factory=SessionBook)
    condition: Condition = field(default_factory=Condition)
    _session: Session | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def credentials(self, now: datetime) -> Session:
        """Return valid credentials of the instance's role, renewed in time."""
        with self._lock:
            life = self.sessions.seconds(6 * 3_600)
            early = timedelta(seconds=min(300.0, life / 2))
            if self._session is None or now + early >= self._session.expires_at:
                self._session = self.sessions.issue_to_instance(
                    self.role_arn, self.instance_arn, now
                )
            return self._session

    def answer(self, path: str) -> bytes | None:
        """Return the content at a path below ``/latest/``; None when it does not exist."""
        if path == "user-data":
            return self.user_data or None
        if path == "dynamic/instance-identity":
            return b"document"
        if path == "dynamic/instance-identity/document":
            return _json(self._identity())
        if not path.startswith("meta-data"):
            return None
        return self._meta(path.removeprefix("meta-data").strip("/"))

    def _meta(self, name: str) -> bytes | None:
        role = self.role_arn.rpartition("/")[2]
        if time.monotonic() < self.condition.no_credentials_until:
            role = ""
        if role and name == _CREDENTIALS + role:
            return _json(self._credentials_document())
        if name == "spot/instance-action" and self.spot_action_at:
            return _json({"action": "terminate", "time": _iso(self.spot_action_at)})
        values = self._values(role)
        if name in values:
            return values[name].encode()
        rest = [
            n[len(name) :].lstrip("/").partition("/")
            for n in values
            if not name or n.startswith(name + "/")
        ]
        # Folders end with a slash, as on EC2.
        below = sorted({first + slash for first, slash, _ in rest})
        return "\n".join(below).encode() if below else None

    def _values(self, role: str) -> dict[str, str]:
        values = {
            "ami-id": self.image_id,
            "instance-id": self.instance_id,
            "instance-type": self.instance_type,
            "instance-life-cycle": "spot" if self.is_spot else "on-demand",
            "local-ipv4": self.private_ip,
            "placement/availability-zone": self.zone,
            "placement/region": self.region,
            "services/domain": "amazonaws.com",
            "services/partition": "aws",
        }
        if role:
            values[_CREDENTIALS.rstrip("/")] = role
            info = {"Code": "Success", "InstanceProfileArn": self.profile_arn}
            values["iam/info"] = json.dumps(info)
        return values

    def _credentials_document(self) -> dict[str, str]:
        now = datetime.now(UTC)
        session = self.credentials(now)
        return {
            "Code": "Success",
            "LastUpdated": _iso(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": session.access_key,
            "SecretAccessKey": session.secret_key,
            "Token": session.token,
            "Expiration": _iso(session.expires_at),
        }

    def _identity(self) -> dict[str, object]:
        return {
            "accountId": self.account,
            "architecture": self.architecture,
            "availabilityZone": self.zone,
            "imageId": self.image_id,
            "instanceId": self.instance_id,
            "instanceType": self.instance_type,
            "pendingTime": _iso(self.launched_at),
            "privateIp": self.private_ip,
            "region": self.region,
            "version": "2017-09-30",
        }


class _Tokens:
    """Session tokens of one instance, with their ends (monotonic seconds)."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def make(self, seconds: int) -> str:
        token = token_urlsafe(40)
        self._ends[token] = time.monotonic() + seconds
        return token

    def is_valid(self, token: str) -> bool:
        return time.monotonic() < self._ends.get(token, 0.0)


class MetadataService:
    """Listens for all instances; every connection is answered in a thread of its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, socket.socket] = {}
        self._closed: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True, name="imds").start()

    def open(self, metadata: Metadata) -> str:
        """Start listening for one instance; return its endpoint."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        listener.setblocking(False)
        handler = _handler(metadata, _Tokens())
        with self._lock:
            self._listeners[metadata.instance_id] = listener
            self._selector.register(listener, selectors.EVENT_READ, handler)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def close(self, instance_id: str) -> None:
        with self._lock:
            listener = self._listeners.pop(instance_id, None)
            if listener:
                self._selector.unregister(listener)
                listener.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(timeout=0.2):
                try:
                    connection, address = key.fileobj.accept()  # type: ignore[union-attr] # a socket
                except OSError:
                    continue
                connection.setblocking(True)
                connection.settimeout(30)
                threading.Thread(
                    target=_answer, args=(key.data, connection, address), daemon=True
                ).start()


Handler = Callable[[socket.socket, object], None]


def _answer(handler: Handler, connection: socket.socket, address: object) -> None:
    with connection, suppress(OSError):
        handler(connection, address)


_VERSION = re.compile(r"/(latest|20[0-9]{2}-[0-9]{2}-[0-9]{2})/")


class _MetadataHandler(BaseHTTPRequestHandler):
    """One connection; the subclass that ``_handler`` makes knows whose."""

    metadata: Metadata
    tokens: _Tokens
    server_version = "EC2ws"
    sys_version = ""

    def _is_ill(self) -> bool:
        """Whether the metadata service is made to fail just now; down: no answer at all."""
        ill, now = self.metadata.condition, time.monotonic()
        time.sleep(ill.imds_delay)
        if now < ill.imds_down_until:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return True
        if now < ill.imds_refuses_until:
            self._send(401, b"")
            return True
        return False

    def do_PUT(self) -> None:
        if self._is_ill():
            return
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if "X-Forwarded-For" in self.headers:
            self._send(403, b"")
        elif self.path != _TOKEN_PATH:
            self._send(404, b"")
        elif not seconds.isdigit() or not 1 <= int(seconds) <= 21_600:
            self._send(400, b"")
        else:
            header = ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", seconds)
            self._send(200, self.tokens.make(int(seconds)).encode(), header)

    def do_GET(self) -> None:
        if self._is_ill():
            return
        if not self.metadata.enabled:
            self._send(403, b"")
        elif not self.tokens.is_valid(self.headers.get("X-aws-ec2-metadata-token", "")):
            self._send(401, b"")
        else:
            self._send_metadata()

    def _send_metadata(self) -> None:
        found = None
        version = _VERSION.match(self.path)
        if version:
            found = self.metadata.answer(self.path[version.end() :].rstrip("/"))
        self._send(404 if found is None else 200, found or b"")

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: metadata requests are not API calls."""


def _handler(metadata: Metadata, tokens: _Tokens) -> Handler:
    own = type("MetadataHandler", (_MetadataHandler,), {"metadata": metadata, "tokens": tokens})

    def handle(connection: socket.socket, address: object) -> None:
        own(connection, address, None)

    return handle


def _json(document: object) -> bytes:
    return json.dumps(document, indent=2).encode()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
