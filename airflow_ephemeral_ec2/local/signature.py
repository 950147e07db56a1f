"""
Is this request signed with that secret? AWS Signature Version 4, the server's side.

Source: IAM User Guide, "Create a signed AWS API request". The path is decoded and encoded again as
S3 does, so a client may send ``:`` plain and sign it encoded.
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, unquote

from airflow_ephemeral_ec2.local.api_request import ApiRequest

MAX_SKEW = timedelta(minutes=15)
_UNRESERVED = "-_.~"


def signature_problem(request: ApiRequest, secret: str, now: datetime) -> str | None:
    """Return the AWS error code of a request that must be refused, or None."""
    authorization = request.headers.get("authorization", "")
    signed_at = _parse_time(request.headers.get("x-amz-date", ""))
    if signed_at is None:
        return "AccessDenied"
    if abs(now - signed_at) > MAX_SKEW:
        return "RequestTimeTooSkewed"
    claimed = request.headers.get("x-amz-content-sha256", "")
    actual = hashlib.sha256(request.body).hexdigest()
    if len(claimed) == 64 and claimed != actual:
        return "XAmzContentSHA256Mismatch"
    given = _part(authorization, "Signature=")
    expected = _signature(request, secret, claimed or actual)
    return None if hmac.compare_digest(given, expected) else "SignatureDoesNotMatch"


def _signature(request: ApiRequest, secret: str, payload: str) -> str:
    authorization = request.headers.get("authorization", "")
    signed = _part(authorization, "SignedHeaders=")
    scope = _part(authorization, "Credential=").partition("/")[2]
    canonical = "\n".join(
        (
            request.method,
            quote(unquote(request.path), safe="/" + _UNRESERVED),
            _canonical_query(request.query),
            *(f"{name}:{_squeezed(request.headers.get(name, ''))}" for name in signed.split(";")),
            "",
            signed,
            payload,
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, digest))
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    encoded = sorted((quote(k, safe=_UNRESERVED), quote(v, safe=_UNRESERVED)) for k, v in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _part(authorization: str, name: str) -> str:
    return authorization.partition(name)[2].partition(",")[0].strip()


def _squeezed(value: str) -> str:
    return " ".join(value.split())


def _parse_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
