"""A signed request to AWS: endpoint, credentials, retries, error codes. Nothing of a service."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Failure, Transient
from airflow_ephemeral_ec2.agent.signer import sign
from airflow_ephemeral_ec2.agent.transport import Answer, Transport, patiently
from airflow_ephemeral_ec2.contract import ERROR_DENIED, ERROR_INTERNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from airflow_ephemeral_ec2.agent.clock import Clock
    from airflow_ephemeral_ec2.agent.signer import Keys

ERROR_CODE = re.compile(rb'<Code>(\w+)</Code>|"__type"\s*:\s*"(?:[^"]*#)?(\w+)')
PASSING = re.compile(
    "TooSkewed|Expired|Invalid(Token|Access)|Throttl|RequestTimeout|SlowDown| 409| 429"
)
"""What new credentials, the right time or patience can cure."""


def refusal_of(answer: Answer) -> str:
    """Return status and AWS's error code (XML or JSON); empty for 2xx, 404 and 412."""
    if answer.status // 100 == 2 or answer.status in {404, 412}:
        return ""
    found = ERROR_CODE.search(answer.body)
    code = (found.group(1) or found.group(2)).decode() if found else ""
    return f"HTTP {answer.status} {code}"


class Aws:
    """Asks AWS as whoever ``keys`` returns."""

    def __init__(
        self,
        region: str,
        endpoint: str,
        keys: Callable[[], Keys],
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.region, self.endpoint = region, endpoint.rstrip("/")
        self.keys, self.clock, self.sleep = keys, clock, sleep
        self.transport = Transport()

    def url(self, service: str) -> str:
        """Return the base URL of a service (``bucket.s3`` counts as one)."""
        suffix = ".cn" if self.region.startswith("cn-") else ""
        url = self.endpoint or f"https://{service}.{self.region}.amazonaws.com{suffix}"
        self.transport.prepare(url)
        return url

    def ask(
        self,
        service: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        patience: float,
        sink: BinaryIO | None = None,
    ) -> Answer:
        """Return an answer of 2xx, 404 or 412, asking until there is one.

        Raises:
            Failure: refused, or no answer within ``patience`` seconds.

        """
        host, _, path = url.split("://")[1].partition("/")

        def attempt() -> Answer:
            if sink is not None:
                sink.seek(0)
                sink.truncate()
            signed = sign(
                method,
                "/" + path,
                {**headers, "host": host},
                body,
                service=service,
                region=self.region,
                keys=self.keys(),
                amz_date=self.clock.amz_date(),
            )
            answer = self.transport.send(method, url, signed, body, sink)
            self.clock.observe(answer.date)
            refusal = refusal_of(answer)
            if refusal and (answer.status >= 500 or PASSING.search(refusal)):
                raise Transient(f"{service}: {refusal}")
            return answer

        answer = patiently(attempt, patience, self.sleep)
        refusal = refusal_of(answer)
        if refusal:
            denied = answer.status in {401, 403} or "Denied" in refusal
            kind = ERROR_DENIED if denied else ERROR_INTERNAL
            raise Failure(kind, f"{service} {method} {host}/{path}: {refusal}")
        return answer
