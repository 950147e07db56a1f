"""Instance metadata, version 2 only: who this machine is, its credentials, a spot notice."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Transient
from airflow_ephemeral_ec2.agent.transport import Transport, patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_ephemeral_ec2.agent.signer import Keys

DEFAULT_ENDPOINT = "http://169.254.169.254"
ROLE = "/latest/meta-data/iam/security-credentials/"
NAMES = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")


class Imds:
    """A session token and a few paths; every question is asked for up to ``patience`` seconds."""

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        patience: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        self.patience, self.sleep = patience, sleep
        self._transport = Transport(timeout=5.0)
        self._token = ""

    def identity(self) -> Mapping[str, str]:
        """Return the identity document: instanceId, region, accountId and more."""

        def attempt() -> Mapping[str, str]:
            body = self._get("/latest/dynamic/instance-identity/document")
            if body is None:
                raise Transient("IMDS has no identity document yet")
            return dict(json.loads(body))

        return patiently(attempt, self.patience, self.sleep)

    def keys(self) -> Keys:
        """Return the machine's own credentials; they may appear only seconds after boot."""
        return patiently(self._keys, self.patience, self.sleep)

    def spot_notice(self) -> bool:
        """Return whether EC2 announced to take this spot instance back."""
        return self._get("/latest/meta-data/spot/instance-action") is not None

    def _keys(self) -> Keys:
        role = (self._get(ROLE) or b"").decode().strip().split("\n")[0]
        text = self._get(ROLE + role) if role else None
        found = json.loads(text) if text else {}
        if found.get("Code", "Success") != "Success" or "AccessKeyId" not in found:
            raise Transient("IMDS has no role credentials yet; is an instance profile attached?")
        return {name: found[name] for name in NAMES}

    def _get(self, path: str) -> bytes | None:
        if not self._token:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
            answer = self._transport.send("PUT", self.endpoint + "/latest/api/token", lifetime)
            if answer.status != 200:
                raise Transient(f"IMDS token: HTTP {answer.status}")
            self._token = answer.body.decode()
        header = {"X-aws-ec2-metadata-token": self._token}
        answer = self._transport.send("GET", self.endpoint + path, header)
        if answer.status == 404:
            return None
        if answer.status != 200:
            self._token = ""
            raise Transient(f"IMDS {path}: HTTP {answer.status}")
        return answer.body
