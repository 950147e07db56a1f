"""A table file is parsed once per version and process, whoever asks: DAG file, then task."""

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from airflow_ephemeral_ec2.config_table.load import SUFFIXES, load_table, name_companion
from airflow_ephemeral_ec2.config_table.table import ConfigTable, name_lock_path

KEPT = 8
"""Tables; a process reads one or two."""
SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again within one tick of its time stamp, with
the same size; such a version is not kept (Git calls it "racily clean"). 2 s is the tick of FAT."""

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class _Kept:
    stamp: _Stamp
    table: ConfigTable


class TableCache:
    """The last versions of some tables; safe between threads, correct after any edit."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._unlock)

    def load(self, path: str | Path) -> ConfigTable:
        """
        Read a table file as it is now.

        :raises TableError: with every problem; a wrong table is read again each time
        """
        name = str(path)
        if not name.endswith(SUFFIXES):
            return load_table(path)  # says what a table is
        with self._lock:
            before = _stamp(name)
            kept = self._kept.get(name)
            if kept is not None and kept.stamp == before:
                self._kept.move_to_end(name)
                return kept.table
            self._kept.pop(name, None)
            table = load_table(path)
            if before == _stamp(name) and _is_settled(before):
                self._kept[name] = _Kept(before, table)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return table

    def _unlock(self) -> None:
        """Another thread may have held the lock when this process was forked."""
        self._lock = threading.Lock()


def _stamp(name: str) -> _Stamp:
    """Describe the versions of all files that a table is made of."""
    files = [name, str(name_lock_path(name))]
    if name.endswith(".csv"):
        files.append(name_companion(name))
    return tuple(_look(file) for file in files)


def _look(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_settled(stamp: _Stamp) -> bool:
    newest = max((one[0] for one in stamp if one is not None), default=0)
    return newest < time.time_ns() - SETTLED_NS


_CACHE = TableCache()


def load_cached_table(path: str | Path) -> ConfigTable:
    """
    Read a table file; the version that this process has parsed already is not parsed again.

    :raises TableError: with every problem
    """
    return _CACHE.load(path)
