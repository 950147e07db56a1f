"""Agent config -> user data: what the instance does from its first second to its last.

Two parts in one gzipped MIME message, as cloud-init takes it. The boothook runs at every boot
and bounds the machine's life, whatever else goes wrong; it ends a machine that was rebooted after
a minute, since scripts do not run a second time. The script is the agent; its only variable part
is one base64 blob, so nothing of a table is ever read by a shell.

Why the boothook has exactly this form: ``shutdown -P`` fails there for want of a bus, and a timer
with default dependencies waits for the boot that waits for it.
"""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files

from airflow_ephemeral_ec2.exceptions import UserDataTooLargeError

USER_DATA_LIMIT = 16_384
"""Bytes, before base64 (RunInstances, EC2 API reference)."""
BOUNDARY = "==ephemeral-ec2=="


def render_user_data(config: Mapping[str, object], *, agent: str) -> bytes:
    """Return the user data of one attempt; equal input gives equal bytes.

    ``agent`` is the agent's source, which defines ``main(blob, agent_sha256)``. The bytes depend
    on Python's and zlib's version as well: keep them in the launch record, do not render again.
    """
    lifetime = config["max_lifetime"]
    if not isinstance(lifetime, int):
        message = f"max_lifetime must be whole seconds, found {lifetime!r}"
        raise TypeError(message)
    boothook = _template("boothook.sh").replace("@MAX_LIFETIME@", str(lifetime))
    blob = base64.b64encode(zlib.compress(_compact(config), 9)).decode()
    digest = sha256(agent.encode()).hexdigest()
    script = f'{_template("agent_start.sh")}{agent}main("{blob}","{digest}")\n'
    return _smallest_gzip(_multipart(boothook, script).encode())


def check_size(user_data: bytes, *, job: str) -> None:
    """Refuse user data that EC2 would refuse.

    Raises:
        UserDataTooLargeError: more than 16,384 bytes.

    """
    if len(user_data) > USER_DATA_LIMIT:
        raise UserDataTooLargeError(job, len(user_data), USER_DATA_LIMIT)


def _compact(config: Mapping[str, object]) -> bytes:
    return json.dumps(config, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _smallest_gzip(content: bytes) -> bytes:
    """Return gzip without a time; ``memLevel`` decides where zlib's blocks end, 1% of the size."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    tail = struct.pack("<II", zlib.crc32(content), len(content))
    packers = [zlib.compressobj(9, zlib.DEFLATED, -15, level) for level in range(4, 10)]
    return head + min((p.compress(content) + p.flush() for p in packers), key=len) + tail


def _multipart(boothook: str, script: str) -> str:
    parts = (("cloud-boothook", boothook), ("x-shellscript", script))
    body = "".join(
        f'--{BOUNDARY}\nContent-Type: text/{kind}; charset="utf-8"\n\n{text}'
        for kind, text in parts
    )
    head = f'Content-Type: multipart/mixed; boundary="{BOUNDARY}"\nMIME-Version: 1.0\n\n'
    return f"{head}{body}--{BOUNDARY}--\n"


@cache
def _template(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
