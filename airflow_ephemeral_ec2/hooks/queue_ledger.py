"""The queue state as one controller holds it: the lease, changes in memory, one write for many."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.model.admission import (
    Lease,
    QueueState,
    Unavailable,
    find_refusal,
    forget_refusal,
    remember_refusal,
)

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.job_store import JobStore

LEASE_SECONDS = 60.0


class QueueLedger:
    """
    Reads the queue state once and then only writes it, as long as nobody else does.

    ``state`` may be replaced; ``save`` writes it if it changed.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._me = secrets.token_hex(8)
        self.state = QueueState()
        self._saved = self.state
        self._etag: str | None = None
        self._is_stale = True

    def take_lease(self) -> bool:
        """Take or renew the right to act; False while another controller has it."""
        if self._is_stale:
            self.state, self._etag = self._store.read_state()
            self._saved = self.state
            self._is_stale = False
        now, lease = self._store.clock.now(), self.state.lease
        if lease is not None and lease.holder != self._me:
            if now < lease.expires_at:
                self._is_stale = True
                return False
        elif lease is not None and lease.expires_at - now > LEASE_SECONDS / 2:
            return True
        fresh = Lease(holder=self._me, expires_at=now + LEASE_SECONDS)
        self.state = self.state.model_copy(update={"lease": fresh})
        return self.save()

    def release(self) -> None:
        """Give the lease back, so that another controller need not wait for its end."""
        if self.state.lease is not None and self.state.lease.holder == self._me:
            self.state = self.state.model_copy(update={"lease": None})
            self.save()

    def save(self) -> bool:
        """Write the queue state if it changed; False when somebody else was first."""
        if self.state == self._saved:
            return True
        etag = self._store.write_state(self.state, self._etag)
        if etag is None:
            self._is_stale = True
            return False
        self._etag, self._saved = etag, self.state
        return True

    def set(self, name: str, **changes: object) -> None:
        """Change what is known about an open attempt."""
        entries = dict(self.state.entries)
        entries[name] = entries[name].model_copy(update=changes)
        self.state = self.state.model_copy(update={"entries": entries})

    def drop(self, name: str) -> None:
        """Forget an attempt that has ended."""
        entries = {key: value for key, value in self.state.entries.items() if key != name}
        self.state = self.state.model_copy(update={"entries": entries})

    # -- offerings ---------------------------------------------------------------------------

    def find_refusal(self, offering: str) -> Unavailable | None:
        """Return the refusal of an offering while it counts."""
        return find_refusal(self.state, offering, self._store.clock.now())

    def remember_refusal(self, offering: str, code: str, seconds: float) -> None:
        """Let the jobs behind not ask for what EC2 has nothing left of now."""
        now = self._store.clock.now()
        self.state = remember_refusal(self.state, offering, code, now, seconds)

    def forget_refusal(self, offering: str) -> None:
        """Let everybody ask for an offering again: it gave a machine."""
        self.state = forget_refusal(self.state, offering)
