"""What stops the agent before the job's command: named, so that the report can say it."""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 - it is the report's word
    """The end of this attempt: one of the contract's ERROR_* and a text without job output."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message


class Transient(Exception):  # noqa: N818
    """Worth asking again: network, throttling, a fault inside AWS."""


class Interrupted(Exception):  # noqa: N818
    """Somebody shuts this machine down."""
