"""One Unix user id per instance, so that all its processes can be found and killed."""

import pwd
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_RANGES = (range(70_000, 74_000), range(60_706, 61_184))
"""systemd's "Users, Groups, UIDs and GIDs" lists both as unused by anybody."""


@dataclass(frozen=True)
class UserIdLease:
    """A user id that nobody else on this host uses; it ends when every copy of the lock closes."""

    uid: int
    lock: socket.socket

    def release(self) -> None:
        self.lock.close()


def candidate_ids(uid_map: str) -> Iterator[int]:
    """List ids to try that exist in this user namespace; ``uid_map`` is /proc/self/uid_map."""
    mapped = [(int(a), int(a) + int(c)) for a, _, c in map(str.split, uid_map.splitlines())]
    for ids in _RANGES:
        yield from (one for one in ids if any(low <= one < high for low, high in mapped))


def lease_user_id() -> UserIdLease:
    """
    Take a free user id; only for root.

    The lock is an abstract socket: it leaves no file and vanishes with its holders.

    :raises OSError: none is free.
    """
    uid_map = Path("/proc/self/uid_map").read_text(encoding="ascii")
    used = set(_running_user_ids())
    for uid in candidate_ids(uid_map):
        if uid in used or _has_account(uid):
            continue
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(f"\0ephemeral-ec2-local/{uid}")
        except OSError:
            lock.close()
            continue
        return UserIdLease(uid, lock)
    msg = "no free user id for an instance; is the number of local instances over 4,000?"
    raise OSError(msg)


def _running_user_ids() -> Iterator[int]:
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield place.stat().st_uid


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
