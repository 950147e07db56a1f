"""
Finding and ending every process of one instance. Standard library only, few imports.

As root an instance is a user id of its own; otherwise it is everything below its supervisor, which
is a "child subreaper" (prctl(2)), so that daemons stay below it too.
"""

# ruff: noqa: PTH101, PTH106, PTH108, PTH123, PTH208 - pathlib would double a supervisor's start

import ctypes
import os
import signal
import stat
from contextlib import suppress

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_FIRST_USER = 1_000


def prctl(option: int, value: int) -> int:
    """Set a property of this process; -1 where the system knows none of them."""
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except AttributeError:
        return -1
    unsigned = ctypes.c_ulong
    return int(call(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0)))


def hide(paths: list[str]) -> None:
    """
    Cover files (sockets, mostly) from this process and its children, without being root.

    Uses a user and a mount namespace of its own; the host sees no mount.

    :raises OSError: the kernel or its policy does not allow it.
    """
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    for path in paths:
        _call("mount", b"/dev/null", path.encode(), None, ctypes.c_ulong(_MS_BIND), None)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def own_processes(uid: int, supervisor: int) -> list[int]:
    """
    List the living processes of a guest, no zombies.

    :param uid: the guest's user id; 0 looks for all descendants of ``supervisor`` instead.
    """
    table = {}
    for name in os.listdir("/proc"):
        found = _describe(name) if name.isdigit() else None
        if found:
            table[int(name)] = found
    if uid:
        return [pid for pid, (_, alive, owners) in table.items() if alive and uid in owners]
    family = {supervisor}
    while True:
        more = {pid for pid, (parent, _, _) in table.items() if parent in family} - family
        if not more:
            break
        family |= more
    return [pid for pid in family - {supervisor} if table[pid][1]]


def _describe(pid: str) -> tuple[int, bool, set[int]] | None:
    """Read parent, whether it lives, and all user ids of a process from /proc (proc(5))."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file.read(2_000).splitlines()[:12])
        owners = {int(one) for one in lines[b"Uid"].split()}
        return int(lines[b"PPid"]), lines[b"State"].split()[0] not in {b"Z", b"X"}, owners
    except (OSError, KeyError, ValueError):
        return None


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone already."""
    with suppress(OSError):
        os.kill(pid, number)


def kill_user(uid: int) -> None:
    """
    Kill every process of a user id at once, fork bombs included.

    A child becomes that user and calls kill(-1), which cannot touch anybody else.

    :raises ValueError: a user id that may belong to somebody.
    """
    if uid < _FIRST_USER:
        msg = f"refusing to kill the processes of user {uid}"
        raise ValueError(msg)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            if os.getresuid() == (uid, uid, uid):
                os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def remove_tree(folder: str) -> None:
    """Delete a folder of any depth without following links; what cannot be deleted stays."""
    waiting = [folder]
    emptied = []
    while waiting:
        place = waiting.pop()
        emptied.append(place)
        with suppress(OSError):
            os.chmod(place, stat.S_IRWXU)
            with os.scandir(place) as entries:
                for entry in list(entries):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        os.unlink(entry.path)
    for place in reversed(emptied):
        with suppress(OSError):
            os.rmdir(place)
