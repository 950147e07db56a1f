"""The queue state as one controller holds it: the lease, changes in memory, one write for many."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.arrivals import merge_arrivals
from airflow_ephemeral_ec2.model.queue import (
    EntryState,
    Lease,
    QueueState,
    Stage,
    Unavailable,
    find_refusal,
    forget_refusal,
    remember_refusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.job_store import JobStore
    from airflow_ephemeral_ec2.model.queue import QueueEntry

LEASE_SECONDS = 60.0
KEPT_SECONDS = LEASE_SECONDS * 2 / 3
"""In the middle of a long pass, a lease that ends sooner than this is renewed."""


class QueueLedger:
    """
    Reads the queue state once and then only writes it, as long as nobody else does.

    What is changed here is written by ``save``, all at once.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._me = secrets.token_hex(8)
        self._state = QueueState()
        self.entries: dict[str, EntryState] = {}
        """Open attempts by name; changed by ``set`` and ``drop`` only."""
        self._etag: str | None = None
        self._is_stale = True
        self._is_closed = self._is_changed = False
        self.adoptions = 0
        """How often the state was read: each time others may have acted before."""
        self._is_new = False
        """There was no state when it was read."""
        self._lock = threading.RLock()
        """Launches and endings under way at the same time change the state."""

    @property
    def state(self) -> QueueState:
        """The state as it would be written now."""
        return self._state.model_copy(update={"entries": self.entries})

    def take_lease(self) -> bool:
        """Take or renew the right to act; False while another controller has it."""
        if self._is_closed:
            return False
        if self._is_stale:
            self._adopt(*self._store.read_state())
        now, lease = self._store.clock.now(), self._state.lease
        if lease is not None and lease.holder != self._me:
            if now < lease.expires_at:
                self._is_stale = True
                return False
        elif lease is not None and lease.expires_at - now > LEASE_SECONDS / 2:
            return True
        return self._renew(now)

    @property
    def is_held_elsewhere(self) -> bool:
        """Whether another controller has the lease, by what was read last; it may be back since."""
        lease = self._state.lease
        is_theirs = lease is not None and lease.holder != self._me
        return is_theirs and lease is not None and self._store.clock.now() < lease.expires_at

    def keep_lease(self) -> bool:
        """
        Renew the lease in the middle of a pass, if it is time; False: another has it, or may have.

        Not while other threads change entries: the state is written as it is.
        """
        now, lease = self._store.clock.now(), self._state.lease
        if self._is_closed or self._is_stale or lease is None or lease.holder != self._me:
            return False
        return lease.expires_at - now > KEPT_SECONDS or self._renew(now)

    def _renew(self, now: float) -> bool:
        self._change(lease=Lease(holder=self._me, expires_at=now + LEASE_SECONDS))
        return self.save()

    def _adopt(self, state: QueueState, etag: str | None) -> None:
        self._state, self._etag, self._is_new = state, etag, etag is None
        self.entries = dict(state.entries)
        self._is_stale = self._is_changed = False
        self.adoptions += 1

    def close(self) -> None:
        """Neither take nor keep the lease any more."""
        self._is_closed = True

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        if self._state.lease is not None and self._state.lease.holder == self._me:
            self._change(lease=None)
            self.save()

    def save(self) -> bool:
        """Write the queue state if it changed; False when somebody else was first."""
        if not self._is_changed:
            return True
        etag = self._store.write_state(self.state, self._etag)
        if etag is None:
            self._is_stale = True
            return False
        self._etag, self._is_changed = etag, False
        return True

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._state = self._state.model_copy(update=changes)
            self._is_changed = True

    # -- entries -----------------------------------------------------------------------------

    def merge(self, entries: Sequence[QueueEntry], listed: AbstractSet[str]) -> None:
        """Give new entries their place, and forget those that are gone."""
        before = self.state
        after = merge_arrivals(before, entries, listed)
        if after is not before:
            self._state, self.entries = after, dict(after.entries)
            self._is_changed = True

    @property
    def must_be_rebuilt(self) -> bool:
        """Whether the state was lost and EC2 has not been asked yet what is out."""
        return self._state.is_rebuilt

    def end_rebuilding(self, *, has_machines: bool) -> None:
        """
        EC2 has said what is out; who waits may have been asked for all the same.

        Not in an environment that is new: it has no state and no machine.
        """
        if has_machines or not self._is_new:
            for name in self.entries:
                self.set(name, may_have_asked=True)
        self._change(is_rebuilt=False)

    def set(self, name: str, **changes: object) -> None:
        """Change what is known about an open attempt."""
        with self._lock:
            known = self.entries[name]
            changed = known.model_copy(update=changes)
            if changed != known:
                self.entries[name] = changed
                self._is_changed = True

    def note_words(self, words: Iterable[tuple[str, str]]) -> None:
        """Write down what those who wait were told last, for tasks that another process follows."""
        for name, word in words:
            known = self.entries[name]
            if known.word != word and known.stage is not Stage.LAUNCHED:
                self.set(name, word=word)

    def drop(self, name: str) -> None:
        """Forget an attempt that has ended."""
        with self._lock:
            if self.entries.pop(name, None) is not None:
                self._is_changed = True

    # -- offerings ---------------------------------------------------------------------------

    def find_refusal(self, offering: str) -> Unavailable | None:
        """Return the refusal of an offering while it counts."""
        return find_refusal(self._state.unavailable, offering, self._store.clock.now())

    def remember_refusal(self, offering: str, code: str, seconds: float) -> None:
        """Let the jobs behind not ask for what EC2 has nothing left of now."""
        now = self._store.clock.now()
        with self._lock:
            known = remember_refusal(self._state.unavailable, offering, code, now, seconds)
            self._change(unavailable=known)

    def forget_refusal(self, offering: str) -> None:
        """Let everybody ask for an offering again: it gave a machine."""
        with self._lock:
            if offering in self._state.unavailable:
                self._change(unavailable=forget_refusal(self._state.unavailable, offering))
