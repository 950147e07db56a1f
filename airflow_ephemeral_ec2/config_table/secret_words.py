"""Does a value look like a secret? User data is readable on the machine and by EC2's API."""

import math
import re
from collections import Counter

ADVICE = "looks like a secret, and user data is readable; write it in secrets: as ssm:NAME or secretsmanager:NAME"

_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY|CREDENTIALS?(_|$)"
    r"|(^|_)TOKEN(_|$)|_PWD$|(^|_)AUTH$",
    re.IGNORECASE,
)
_HARMLESS_NAME = re.compile(
    r"_(FILE|PATH|DIR|NAME|ARN|URL|URI|ENDPOINT|REGION|BUCKET|TABLE|TTL|SECONDS|MINUTES|LENGTH|COUNT"
    r"|LIMIT|TYPE|VERSION|ROTATION|EXPIRY)$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS access key id
    r"|-----BEGIN "  # PEM
    r"|\bgh[pousr]_[0-9A-Za-z]{20,}|\bgithub_pat_[0-9A-Za-z_]{20,}|\bglpat-[0-9A-Za-z_-]{16,}"
    r"|\bxox[abeoprs]-[0-9A-Za-z-]{10,}"  # Slack
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}"  # JSON web token
    r"|\bsk[-_](live|test|ant|proj)[-_][0-9A-Za-z_-]{10,}"
    r"|://[^/\s:@]*:[^/\s@]+@"  # scheme://user:password@host
)
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{32,}")
_BITS_PER_CHARACTER = 4.3
"""32 random base64 characters have about 4.5; words and paths stay below 4.2."""


def is_secret_name(name: str) -> bool:
    return bool(_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def is_secret_value(value: str) -> bool:
    """Known forms of keys, tokens and passwords in addresses."""
    return bool(_VALUE.search(value))


def is_random(value: str) -> bool:
    """One long word of mixed letters and digits that no person would write."""
    if not _RANDOM.fullmatch(value) or not _has_every_kind(value):
        return False
    longest = max(len(part) for part in re.split(r"[/_-]", value))
    return longest >= 16 and _entropy(value) >= _BITS_PER_CHARACTER


def explain_secret(name: str, value: object) -> str | None:
    """Say why an environment variable must not be literal, or None; never shows the value."""
    if value in ("", None):
        return None
    if is_secret_name(name):
        return f"the name {ADVICE}"
    if isinstance(value, str) and (is_secret_value(value) or is_random(value)):
        return f"the value {ADVICE}"
    return None


def _has_every_kind(value: str) -> bool:
    return all(re.search(kind, value) for kind in ("[a-z]", "[A-Z]", "[0-9]"))


def _entropy(value: str) -> float:
    counts = Counter(value)
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
