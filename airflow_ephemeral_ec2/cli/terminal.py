"""Where words go: results to stdout, the story to stderr, so that a pipe gets results only."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from rich.status import Status


class Terminal:
    """stdout and stderr of one call; plain text where they are not a terminal."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json
        self._status: Status | None = None
        self._last_shown = ""
        self._out = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self._err = Console(file=sys.stderr, soft_wrap=True, highlight=False)

    @property
    def is_piped(self) -> bool:
        return not sys.stdout.isatty()

    def show(self, text: str) -> None:
        """Write a result for people; says nothing when a program reads."""
        if not self.is_json:
            self._out.print(text, markup=False)
            sys.stdout.flush()

    def show_json(self, value: object) -> None:
        """Write the one result for a program."""
        if self.is_json:
            sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
            sys.stdout.flush()

    def tell(self, text: str, style: str = "") -> None:
        """Tell what happens, on stderr."""
        self._err.print(text, markup=False, style=style)

    def write_bytes(self, data: bytes) -> None:
        """Write raw bytes to stdout, or to stderr when a program reads JSON there."""
        stream = sys.stderr if self.is_json else sys.stdout
        if self._status is not None:
            # A spinner in the middle of somebody else's line would spoil both.
            self._status.stop()
        try:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
        except BrokenPipeError:
            # Whoever read has seen enough; the job goes on.
            silence(stream)
        if self._status is not None:
            self._status.start()

    @contextmanager
    def live(self) -> Iterator[Callable[[list[str], object], None]]:
        """
        Show the same thing again and again: in place on a terminal, else again when it changed.

        A program gets one JSON document per line.
        """
        if self.is_json:
            yield lambda _, value: self._write(json.dumps(value, default=str))
        elif self.is_piped:
            yield self._show_changed
        else:
            with Live(console=self._out, auto_refresh=False, vertical_overflow="crop") as live:
                yield lambda lines, _: live.update(Text("\n".join(lines)), refresh=True)

    def _show_changed(self, lines: list[str], _value: object) -> None:
        text = "\n".join(lines)
        if text != self._last_shown:
            self._last_shown = text
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    @contextmanager
    def activity(self, text: str) -> Iterator[None]:
        """Turn a spinner on a terminal; write nothing into a file."""
        if not self._err.is_terminal:
            yield
            return
        with self._err.status(text) as self._status:
            yield
        self._status = None


def silence(stream: TextIO) -> None:
    """Send what is still written to a stream nowhere, Python's own flush at exit included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
