"""AWS Signature Version 4, as a pure function.

Source: "Create a signed AWS API request", AWS IAM user guide. S3 takes the path encoded once,
every other service twice.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    Keys = Mapping[str, str]
    """AccessKeyId, SecretAccessKey, Token and Expiration, as the instance metadata give them."""

ALGORITHM = "AWS4-HMAC-SHA256"


def sign(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    service: str,
    region: str,
    keys: Keys,
    amz_date: str,
) -> dict[str, str]:
    """Return the headers with those that prove who asks; ``path`` is encoded already.

    ``headers`` must hold ``host``, names in lower case, no query string in ``path``.
    """
    payload = sha256(body).hexdigest()
    signed = {**headers, "x-amz-date": amz_date, "x-amz-security-token": keys["Token"]}
    if service == "s3":
        signed["x-amz-content-sha256"] = payload
    else:
        path = quote(path, safe="/-_.~")
    names = ";".join(sorted(signed))
    lines = "".join(name + ":" + " ".join(signed[name].split()) + "\n" for name in sorted(signed))
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{payload}"
    scope = f"{amz_date[:8]}/{region}/{service}/aws4_request"
    digest = sha256(canonical.encode()).hexdigest()
    key = ("AWS4" + keys["SecretAccessKey"]).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, f"{ALGORITHM}\n{amz_date}\n{scope}\n{digest}".encode(), "sha256")
    access = keys["AccessKeyId"]
    signed["authorization"] = (
        f"{ALGORITHM} Credential={access}/{scope}, "
        f"SignedHeaders={names}, Signature={signature.hex()}"
    )
    return signed
