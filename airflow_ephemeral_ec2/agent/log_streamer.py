"""The job's output, shipped in numbered chunks while it runs, in bounded memory.

Output is kept in one buffer that forgets its oldest bytes: when the store cannot be reached,
and when ``limit`` is used up (then the last 64 KiB stay, where the reason of a failure is).
What is forgotten is counted and marked in the log.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20
BUFFER = 8 << 20
TAIL = 1 << 16
FIRST_FLUSH = 0.3
FLUSH = 2.0


class LogStreamer:
    """Reads pipes, calls ``put(sequence, body)`` from one thread, never holds the job up for long.

    ``put`` raises Failure if it could not ship the chunk; it is called again with the same.
    """

    def __init__(self, put: Callable[[int, bytes], object], limit: int) -> None:
        self.put = put
        tail = min(TAIL, limit // 4)
        self._head, self._tail = limit - tail, tail
        self._buffer = bytearray()
        self._changed = threading.Condition()
        self._healthy, self._closing = True, False
        self._give_up_at = 0.0
        self._gap = self._in_flight = 0
        self.chunks = self.bytes = self.dropped_bytes = 0
        self._thread = threading.Thread(target=self._ship, daemon=True)
        self._thread.start()

    def follow(self, pipe: int) -> threading.Thread:
        """Read a pipe until its end, in a thread of its own."""

        def read() -> None:
            while data := os.read(pipe, TAIL):
                self.feed(data)
            os.close(pipe)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def feed(self, data: bytes) -> None:
        """Take output; waits at most 5 s, and only while the store takes chunks."""
        with self._changed:
            self._healthy = self._changed.wait_for(self._has_room, 5) and self._healthy
            self._buffer += data
            room = self._tail if self.bytes >= self._head else BUFFER + TAIL
            excess = len(self._buffer) - room
            if excess > 0:
                del self._buffer[:excess]
                self._gap += excess
                self.dropped_bytes += excess
            if len(self._buffer) >= CHUNK or not self.chunks:
                self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Ship what is left, for at most ``patience`` seconds; the rest counts as dropped."""
        with self._changed:
            self._closing, self._give_up_at = True, time.monotonic() + patience
            self._changed.notify_all()
        self._thread.join(patience)
        with self._changed:
            self.dropped_bytes += len(self._buffer) + self._in_flight
            self._buffer.clear()

    def counts(self) -> dict[str, int]:
        """Return the report's field ``log``."""
        return {"chunks": self.chunks, "bytes": self.bytes, "dropped_bytes": self.dropped_bytes}

    def _has_room(self) -> bool:
        full = self.bytes < self._head and len(self._buffer) >= BUFFER
        return not full or not self._healthy

    def _take(self) -> bytes:
        """Wait for a chunk's worth, or the time to flush; empty means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._closing)
            if not self._closing:
                self._changed.wait_for(
                    lambda: len(self._buffer) >= CHUNK or self._closing,
                    FLUSH if self.chunks else FIRST_FLUSH,
                )
            # Past the head the buffer is the tail: it goes out once, at the end.
            self._changed.wait_for(lambda: self.bytes < self._head or self._closing)
            size = CHUNK if self._closing else min(CHUNK, self._head - self.bytes)
            body = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._in_flight = len(body)
            note = f"\n[{self._gap} bytes of output were dropped here]\n" if self._gap else ""
            self._gap = 0
            self._changed.notify_all()
            return note.encode() + body

    def _ship(self) -> None:
        while body := self._take():
            while not self._try(body):
                if self._closing and time.monotonic() > self._give_up_at:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, FLUSH)
                if self._closing:
                    time.sleep(0.5)
            with self._changed:
                self.chunks += 1
                self.bytes += self._in_flight
                self._in_flight = 0
                self._changed.notify_all()

    def _try(self, body: bytes) -> bool:
        try:
            self.put(self.chunks + 1, body)
        except Failure:
            self._healthy = False
        else:
            self._healthy = True
        return self._healthy
