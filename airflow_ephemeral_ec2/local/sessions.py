"""Temporary credentials: who holds an access key, until when, from which instance."""

import secrets
import string
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

ADMIN_ACCESS_KEY = "local"
"""Access key id (and secret) that may do everything: Airflow's, and the user's own."""

_ALPHABET = string.ascii_uppercase + "234567"


@dataclass(frozen=True)
class Session:
    """One set of temporary credentials of a role."""

    access_key: str
    secret_key: str
    token: str
    role_arn: str
    session_name: str
    expires_at: datetime
    instance_arn: str = ""
    """Set when the instance metadata service issued them; IAM's ``ec2:SourceInstanceARN``."""

    @property
    def role_name(self) -> str:
        return self.role_arn.rpartition("/")[2]

    @property
    def account(self) -> str:
        return self.role_arn.split(":")[4]

    @property
    def arn(self) -> str:
        return f"arn:aws:sts::{self.account}:assumed-role/{self.role_name}/{self.session_name}"

    def is_expired(self, now: datetime) -> bool:
        return now >= self.expires_at


@dataclass
class SessionBook:
    """All temporary credentials that were issued; ``lifetime`` caps them (seconds)."""

    lifetime: float | None = None
    _by_key: dict[str, Session] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, access_key: str) -> Session | None:
        return self._by_key.get(access_key)

    def add(self, session: Session) -> None:
        with self._lock:
            self._by_key[session.access_key] = session

    def seconds(self, asked: float) -> float:
        """How long credentials live that were asked for ``asked`` seconds."""
        return min(asked, self.lifetime) if self.lifetime else asked

    def issue_to_instance(self, role_arn: str, instance_arn: str, now: datetime) -> Session:
        """Make what the metadata service hands out; EC2 gives about six hours."""
        session = Session(
            access_key="ASIA" + _random(16),
            secret_key=secrets.token_urlsafe(30),
            token=secrets.token_urlsafe(120),
            role_arn=role_arn,
            session_name=instance_arn.rpartition("/")[2],
            expires_at=now + timedelta(seconds=self.seconds(6 * 3_600)),
            instance_arn=instance_arn,
        )
        self.add(session)
        return session

    def forget_instance(self, instance_arn: str) -> None:
        """Drop the credentials of an instance that is gone."""
        with self._lock:
            for key in [k for k, s in self._by_key.items() if s.instance_arn == instance_arn]:
                del self._by_key[key]


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
