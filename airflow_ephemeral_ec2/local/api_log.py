"""The API log: every call and every change of an instance's state, one JSON object per line."""

import json
import os
import threading
import time
from pathlib import Path


class ApiLog:
    """
    Append-only; each line is written with one system call, so nothing is lost or torn.

    ``t`` is Unix time in seconds. No request body, user data or object content is ever written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def write(self, **fields: object) -> None:
        with self._lock:
            line = json.dumps({"t": round(time.time(), 6), **fields}, default=str) + "\n"
            os.write(self._file, line.encode())
