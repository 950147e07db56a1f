"""What keeps a process from asking AWS, told once for each kind of error and not in every pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.hooks.aws_errors import kind_of

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.exceptions import AwsError

CANNOT_ASK = "cannot ask AWS, will ask again: "
ANSWERS_AGAIN = "AWS answers again"


class Outage:
    """
    The errors since AWS last answered.

    In an outage each pass fails, often with another key in its words: what counts as new is the
    class and the code of an error.
    """

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each kind of error so far, in their order; none while AWS answers."""
        return tuple(self._lines.values())

    def note(self, error: AwsError) -> tuple[str, ...]:
        """Take an error; return what is to be told: one line, or none when it is known."""
        kind = kind_of(error)
        if kind in self._lines:
            return ()
        self._lines[kind] = f"{CANNOT_ASK}{error}"
        return (self._lines[kind],)

    def end(self) -> tuple[str, ...]:
        """AWS has answered; return what is to be told."""
        if not self._lines:
            return ()
        self._lines.clear()
        return (ANSWERS_AGAIN,)
