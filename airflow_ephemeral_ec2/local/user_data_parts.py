"""What cloud-init would find in user data: the parts of the (gzip) MIME message."""

import gzip
import zlib
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message

MAX_BYTES = 16_384
"""EC2's limit for user data, before base64."""
_MAX_UNPACKED = 4 * 1024 * 1024


@dataclass(frozen=True)
class UserData:
    """The scripts to run, in order, and whether a boothook was there."""

    scripts: tuple[bytes, ...]
    has_boothook: bool
    ignored: tuple[str, ...] = ()
    """Content types that the local EC2 does not run."""


def read_user_data(raw: bytes) -> UserData:
    """
    Split user data as cloud-init does: gzip, then MIME multipart or one script.

    :raises ValueError: gzip that cannot be unpacked.
    """
    content = _unpack(raw)
    if content.startswith(b"#!"):
        return UserData((content,), has_boothook=False)
    message = message_from_bytes(content)
    if not message.get_content_type().startswith(("multipart/", "text/")) or not content.strip():
        return UserData((), has_boothook=False)
    parts = [part for part in message.walk() if not part.is_multipart()]
    kinds = [part.get_content_type() for part in parts]
    scripts = [_payload(part) for part in parts if part.get_content_type() == "text/x-shellscript"]
    ignored = [k for k in kinds if k not in {"text/x-shellscript", "text/cloud-boothook"}]
    return UserData(tuple(scripts), "text/cloud-boothook" in kinds, tuple(ignored))


def _unpack(raw: bytes) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        return unpacker.decompress(raw, _MAX_UNPACKED)
    except (zlib.error, gzip.BadGzipFile, EOFError) as error:
        msg = f"user data begins like gzip and cannot be unpacked: {error}"
        raise ValueError(msg) from error


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
