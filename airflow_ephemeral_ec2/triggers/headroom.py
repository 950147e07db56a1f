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


def find_shortages(waiting: int, capacity: int, open_files: int) -> dict[str, str]:
    """
    Return what is too small for so many waiting tasks -> a sentence about it.

    :param waiting: tasks that wait in this triggerer
    :param capacity: triggers that one triggerer takes
    :param open_files: soft limit of open files of this process; -1: none
    """
    found = {}
    if waiting >= capacity:
        found["capacity"] = (
            f"{waiting} tasks wait here and a triggerer takes {capacity}: this one is full. The "
            "queue goes on for all, but tasks beyond hear of their ends late; raise [triggerer] "
            "capacity, or run more triggerers"
        )
    needed = max(waiting + OPEN_FILES // 4, OPEN_FILES)
    if 0 <= open_files < needed:
        found["open files"] = (
            f"{open_files} open files are allowed and {needed} may be needed for "
            f"{waiting} waiting tasks: raise the limit (ulimit -n)"
        )
    return found


class Headroom:
    """Tells once about each shortage, in the log of the triggerer."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._most = -1

    def tell_if_short(self, waiting: int) -> None:
        """Look again when more tasks wait than ever before."""
        if waiting <= self._most:
            return
        self._most = waiting
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        for what, sentence in find_shortages(waiting, read_capacity(), open_files).items():
            if what not in self._told:
                self._told.add(what)
                log.warning("%s", sentence)
