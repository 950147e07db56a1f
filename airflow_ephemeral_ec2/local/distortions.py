"""Answers that are not what they should be: bytes in, bytes out."""

import re
from collections.abc import Callable, Mapping

_INSTANCES = re.compile(rb"<instancesSet>.*?</instancesSet>", re.DOTALL)
_RESERVATIONS = re.compile(rb"<reservationSet>.*</reservationSet>", re.DOTALL)
_ID = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")
_ITEM = re.compile(rb"(<instancesSet>)(\s*<item>.*</item>\s*)(</instancesSet>)", re.DOTALL)


def _double(body: bytes) -> bytes:
    """Show a second instance, with an id that nobody knows."""
    found = _ITEM.search(body)
    if not found:
        return body
    other = _ID.sub(b"<instanceId>i-0badbadbadbadbad0</instanceId>", found.group(2))
    start, end = found.span()
    return body[:start] + found.group(1) + found.group(2) + other + found.group(3) + body[end:]


DISTORTIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "no-instances": lambda body: _INSTANCES.sub(b"<instancesSet/>", body),
    "no-id": lambda body: _ID.sub(b"", body),
    "two-instances": _double,
    "truncated": lambda body: body[: len(body) // 2],
    "empty": lambda body: _RESERVATIONS.sub(b"<reservationSet/>", body),
}
"""Name -> what it does to an answer's body."""
