"""Whether this triggerer has room for what waits: its capacity and its open files."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)
OPEN_FILES = 1_024
"""Airflow opens a log file per trigger, and the clients some connections."""
OPTIONS = ("capacity", "default_capacity")
"""``[triggerer]`` capacity; Airflow 2 called it default_capacity."""


def read_capacity() -> int:
    """Return how many triggers one triggerer takes at a time."""
    from airflow.providers.common.compat.sdk import conf  # noqa: PLC0415 - Airflow; the CLI waits without it

    for option in OPTIONS:
        found = conf.get("triggerer", option, fallback=None)
        if found:
            return int(found)
    return 1_000


def find_shortage(awaited: int, capacity: int, open_files: int) -> str | None:
    """
    Say what is too small for so many waiting tasks, or None.

    :param awaited: open attempts that tasks wait for, in all triggerers together
    :param capacity: triggers that one triggerer takes
    :param open_files: soft limit of open files of this process; -1: none
    """
    if awaited > capacity:
        return (
            f"{awaited} tasks wait and one triggerer takes {capacity}: the queue goes on for all, "
            "but tasks beyond hear of their ends late; raise [triggerer] capacity, or run more "
            "triggerers"
        )
    needed = min(awaited, capacity) + OPEN_FILES // 4
    if 0 <= open_files < max(needed, OPEN_FILES):
        return (
            f"{open_files} open files are allowed and {max(needed, OPEN_FILES)} may be needed for "
            f"{awaited} waiting tasks: raise the limit (ulimit -n)"
        )
    return None


class Headroom:
    """Tells once about each shortage, in the log of the triggerer."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._most = -1

    def tell_if_short(self, awaited: int) -> None:
        """Look again when more tasks wait than ever before."""
        if awaited <= self._most:
            return
        self._most = awaited
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        shortage = find_shortage(awaited, read_capacity(), open_files)
        kind = (shortage or "").partition(":")[0].lstrip("0123456789 ")
        if shortage and kind not in self._told:
            self._told.add(kind)
            log.warning("%s", shortage)
