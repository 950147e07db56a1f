"""Reads what the bucket holds of the attempts in the queue, each once, and mends what it can."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry

log = logging.getLogger(__name__)
_NAME = re.compile(r"[0-9A-Za-z]+-a[0-9]{1,9}")


def is_entry_name(name: str) -> bool:
    """Whether an object in the queue is named like one of ours."""
    return _NAME.fullmatch(name) is not None


class EntryReading:
    """
    What was read of each attempt in the queue; it never changes, so it is read once.

    :param tell: adds a line to the story of an attempt
    """

    def __init__(self, store: JobStore, tell: Callable[[str, str], None]) -> None:
        self._store, self._tell = store, tell
        self._entries: dict[str, QueueEntry] = {}
        self._sound: set[str] = set()
        """Names whose launch record was read and is ours."""

    def keep(self, listed: AbstractSet[str]) -> None:
        """Forget those that have left the queue."""
        for name in self._entries.keys() - listed:
            del self._entries[name]
        self._sound &= listed

    def forget(self, name: str) -> None:
        """Read an attempt anew, should it be in the queue again."""
        self._entries.pop(name, None)

    def read(
        self, name: str, state: EntryState | None, *, is_lost: bool
    ) -> QueueEntry | TamperedObjectError | None:
        """Read an entry that is new here; None when its attempt is over."""
        try:
            if not is_entry_name(name):
                return TamperedObjectError(f"queue entry {name}", "is not named like one of ours.")
            if is_lost and self.finish_closing(name):
                return None
            entry = self._entries.get(name) or self._read_entry(name)
            if entry is None:
                return None
            # Kept at once, one by one: another read may fail, or the lease be lost.
            self._entries[name] = entry
            may_be_out = is_lost or (state is not None and state.stage is not Stage.WAITING)
            if may_be_out and name not in self._sound:
                # Its machine may be out: what was asked for must be ours.
                self._store.read_launch(entry.jobkey, entry.attempt)
                self._sound.add(name)
        except TamperedObjectError as error:
            return error
        return entry

    def finish_closing(self, name: str) -> bool:
        """Take an attempt that has an outcome out of the queue; False when it has none."""
        jobkey, _, number = name.rpartition("-a")
        outcome = self._store.read_outcome(jobkey, int(number))
        if outcome is None:
            return False
        # Who recorded it died before the rest, or somebody wrote the entry again.
        self._store.write_history(outcome)
        self._store.close_entry(name)
        return True

    def read_any(self, name: str) -> QueueEntry | None:
        """Read the entry of a damaged attempt, from wherever it can be read."""
        try:
            return self._read_entry(name)
        except TamperedObjectError:
            return None

    def _read_entry(self, name: str) -> QueueEntry | None:
        """Read an entry; one that is not ours any more is made again from its launch record."""
        damage: TamperedObjectError | None = None
        entry = None
        try:
            entry = self._store.read_entry(name)
        except TamperedObjectError as error:
            damage = error
        if entry is not None and entry.name != name:
            damage = TamperedObjectError(f"queue entry {name}", "belongs to another attempt.")
        if damage is None:
            return entry
        jobkey, _, number = name.rpartition("-a")
        try:
            record = self._store.read_launch(jobkey, int(number))
        except TamperedObjectError:
            raise damage from None
        log.error("%s Using the launch record instead.", damage)
        self._tell(name, f"tampered with: {damage} The launch record is used instead.")
        return plan_entry(record)
