"""What a controller remembers of the open attempts, and the story of each for its task log."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import EphemeralEC2Error, TamperedObjectError
from airflow_ephemeral_ec2.hooks.aws_errors import kind_of
from airflow_ephemeral_ec2.hooks.entry_reading import EntryReading, is_entry_name
from airflow_ephemeral_ec2.hooks.launcher import Progress
from airflow_ephemeral_ec2.model.queue import PACED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.hooks.parallel import Parallel
    from airflow_ephemeral_ec2.hooks.queue_store import QueueListing
    from airflow_ephemeral_ec2.model.admission import Wait
    from airflow_ephemeral_ec2.model.plan import LaunchRecord
    from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry

log = logging.getLogger(__name__)
READ_AT_ONCE = 100
"""New attempts whose records are read between two looks at the lease: 200 reads, a few seconds."""
TROUBLE_SECONDS = 600.0
"""Between two lines of one attempt about the same kind of error."""
STORY_SECONDS = 60.0
"""Between two lines that tell behind whom an attempt waits."""


@dataclass
class Memory:
    """What this process remembers of an open attempt; all of it can be read again."""

    entry: QueueEntry
    story: list[str]
    record: LaunchRecord | None = None
    """Kept only while it is being launched: it is large, and there may be thousands."""
    not_before: float = 0.0
    progress: Progress = field(default_factory=Progress)
    """How far its launch has come in this process."""
    last_wait: str = ""
    word: str = ""
    """The line that told it."""
    wait: Wait | None = None
    """What it waits for in the queue, as of the last pass."""
    waits_since: float = 0.0
    """When the story last told what it waits for (bucket's clock)."""
    is_given_up: bool = False
    """It is not launched any more, and EC2 may still show a machine of it."""
    is_started: bool = False
    """The machine is known to hold the start lock."""
    is_heard: bool = False
    """Its console was asked for, or tried to be, before it is ended."""
    misses: int = 0
    """Full sweeps in a row that did not show the machine."""
    acted_at: float = 0.0
    """When something was last done about its end (bucket's clock)."""
    troubles: dict[str, float] = field(default_factory=dict)
    """Kind of error -> when it was last told (bucket's clock)."""
    since: dict[str, float] = field(default_factory=dict)
    """When the machine was first seen impaired, shutting down or dead (bucket's clock)."""

    def seconds_since(self, what: str, now: float, *, holds: bool = True) -> float:
        """Return for how long something has held without a break; 0 when it does not hold."""
        if not holds:
            self.since.pop(what, None)
            return 0.0
        return now - self.since.setdefault(what, now)

    def tell(self, line: str) -> None:
        """Add a line to the story, once."""
        if line not in self.story[-3:]:
            self.story.append(line)

    def tell_place(self, wait: Wait, now: float) -> None:
        """
        Add a line to the story when the place in the queue has changed.

        Not for each of a thousand launches ahead: behind whom is told once a minute at most.
        """
        before, self.wait = self.wait, wait
        if before is not None and before.key == wait.key:
            return
        if wait.behind and before is not None and now - self.waits_since < STORY_SECONDS:
            self.wait = before
            return
        self.waits_since = now
        self.tell_wait(wait.reason)

    def tell_pace(self, ahead: int) -> None:
        """Say once that the launch waits for its turn."""
        if self.last_wait != PACED:
            self.last_wait = PACED
            self.word = f"{PACED}, {ahead} before this one"
            self.story.append(self.word)

    def tell_trouble(self, text: str, kind: str, now: float, *, is_queued: bool) -> None:
        """Add a line about an error; of one kind, whatever its words, only now and then."""
        is_known = now - self.troubles.get(kind, -math.inf) < TROUBLE_SECONDS
        if not is_known:
            self.troubles[kind] = now
        if is_queued and not is_known:
            self.tell_wait(text)
        elif is_queued:
            self.last_wait = text
        elif not is_known:
            self.story.append(text)

    def tell_wait(self, reason: str) -> None:
        """Add a line to the story when the reason to wait has changed."""
        if self.last_wait != reason:
            self.last_wait, self.word = reason, f"queued: {reason}"
            # Whoever acted before may have told the same.
            if self.story[-1:] != [self.word]:
                self.story.append(self.word)


class OpenAttempts:
    """The open attempts by name; all of it can be read again from the bucket."""

    def __init__(self, store: JobStore, in_parallel: Parallel) -> None:
        self._store, self._in_parallel = store, in_parallel
        self.memories: dict[str, Memory] = {}
        self.closed: set[str] = set()
        """Names that the listing of this pass still shows, though their attempt is over."""
        self.damaged: dict[str, TamperedObjectError] = {}
        """Names of which something cannot be read: not acted on, but for being ended."""
        self.tampered: dict[str, TamperedObjectError] = {}
        """Names that are over, and nobody can read how."""
        self._stories: dict[str, list[str]] = {}
        self._reading = EntryReading(store, self.tell)

    def story_of(self, name: str) -> tuple[str, ...]:
        """Tell what happened to an attempt so far, a line each, for its task log."""
        return tuple(self._stories.get(name, ()))

    def forget(self, name: str) -> None:
        """Drop the story of an attempt that nobody awaits any more."""
        if name not in self.memories:
            self._stories.pop(name, None)

    def keep_stories(self, names: AbstractSet[str]) -> None:
        """Drop the stories of all others."""
        for name in set(self._stories) - names:
            del self._stories[name]

    def tell(self, name: str, line: str) -> None:
        """Add a line to the story of an attempt, once."""
        story = self._stories.setdefault(name, [])
        if line not in story:
            story.append(line)

    def hear(self, name: str, line: str) -> None:
        """Add what the controller that acts told an attempt last, unless that was told here last."""
        story = self._stories.setdefault(name, [])
        if story[-1:] != [line]:
            story.append(line)

    def words(self) -> list[tuple[str, str]]:
        """Return what each attempt was told last about its wait, by name."""
        return [(name, memory.word) for name, memory in self.memories.items() if memory.word]

    def close(self, name: str) -> None:
        """Forget an attempt whose outcome is written."""
        self.memories.pop(name, None)
        self.damaged.pop(name, None)
        self._reading.forget(name)
        self.closed.add(name)

    def let_go(self) -> None:
        """Forget all but the stories and what was read: another controller acts."""
        self.memories.clear()
        self.damaged.clear()
        self.tampered.clear()

    def keep_entries(self, listed: AbstractSet[str]) -> None:
        """Forget what was read of those that have left the queue."""
        self._reading.keep(listed)

    def refresh(
        self,
        listing: QueueListing,
        states: Mapping[str, EntryState],
        keep_lease: Callable[[], bool],
        *,
        is_lost: bool = False,
    ) -> bool:
        """
        Read what is new in the queue, and forget what has left it; False: the lease is lost.

        :param states: what the queue state knows of the attempts
        :param keep_lease: renews the lease while much is read; False when another has it
        :param is_lost: the queue state was lost: nobody knows which attempts are over
        """
        for name in set(self.memories) - listing.entries:
            del self.memories[name]
        self.tampered = {}
        self.closed = set()
        self.damaged = {n: e for n, e in self.damaged.items() if n in listing.entries}
        self.keep_entries(listing.entries)
        new = sorted(listing.entries - set(self.memories) - set(self.damaged))
        for start in range(0, len(new), READ_AT_ONCE):
            if start and not keep_lease():
                return False
            self._take_in(new[start : start + READ_AT_ONCE], states, is_lost=is_lost)
        return True

    def _take_in(
        self, names: Sequence[str], states: Mapping[str, EntryState], *, is_lost: bool
    ) -> None:
        def read(name: str) -> QueueEntry | TamperedObjectError | None:
            return self._reading.read(name, states.get(name), is_lost=is_lost)

        for name, found in zip(names, self._in_parallel(read, names), strict=True):
            if isinstance(found, TamperedObjectError):
                # One record that cannot be read must not hold up everybody else's.
                self.damage(name, found)
            elif found is None:
                self.closed.add(name)
            else:
                self.memories[name] = Memory(found, self._stories.setdefault(name, []))

    def record_of(self, name: str) -> LaunchRecord:
        """
        Read the launch record of an attempt.

        :raises TamperedObjectError: it is not ours
        """
        jobkey, _, number = name.rpartition("-a")
        memory = self.memories.get(name)
        if memory is not None and memory.record is not None:
            return memory.record
        return self._store.read_launch(jobkey, int(number))

    def damage(self, name: str, error: TamperedObjectError) -> None:
        """Act on an attempt no more: something of it is not ours."""
        self.memories.pop(name, None)
        self._reading.forget(name)
        self.tell(name, f"cannot be acted on: {error}")
        if is_entry_name(name):
            self.damaged[name] = error
        else:
            log.error("%s", error)

    def finish_closing(self, name: str) -> bool:
        """Take an attempt that has an outcome out of the queue; False when it has none."""
        return self._reading.finish_closing(name)

    def read_any_entry(self, name: str) -> QueueEntry | None:
        """Read the entry of a damaged attempt, from wherever it can be read."""
        return self._reading.read_any(name)

    @contextlib.contextmanager
    def isolated(self, names: Iterable[str], *, is_queued: bool = True) -> Iterator[None]:
        """
        Let trouble with some attempts hold up only these, and tell them.

        :param is_queued: they wait for a machine still
        """
        try:
            yield
        except Exception as error:
            # A fault of our own in one attempt must not stop the others; it is in the log.
            if not isinstance(error, EphemeralEC2Error):
                log.exception("cannot act on %s", sorted(names))
            for name in names:
                if isinstance(error, TamperedObjectError) and name in self.memories:
                    self.damage(name, error)
                if name in self.memories:
                    # The words of an unknown error may hold anything; its kind is enough here.
                    known = isinstance(error, EphemeralEC2Error)
                    text = str(error) if known else f"{type(error).__name__} (in the log)."
                    self.memories[name].tell_trouble(
                        f"{text} Will ask again.",
                        kind_of(error),
                        self._store.clock.now(),
                        is_queued=is_queued,
                    )
