"""How a controller without the lease follows the queue: one call of S3 a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from airflow_ephemeral_ec2.hooks.job_store import JobStore


class StandingBy:
    """
    What one controller knows of the queue while another acts.

    The holder's state, which is read for its lease, also says who has ended since: it is the
    listing of the passes in between.

    :param list_every: passes of which one lists the queue
    """

    def __init__(self, store: JobStore, list_every: int) -> None:
        self._store, self._list_every = store, list_every
        self._listed: frozenset[str] | None = None
        self._unlisted = 0

    def forget(self) -> None:
        """List the queue anew when this is needed again: the lease was ours meanwhile."""
        self._listed = None

    def must_list(self, awaited: AbstractSet[str]) -> bool:
        """Whether it is time to list the queue, or somebody waits for a name that is new here."""
        if self._listed is None or not awaited <= self._listed:
            return True
        return self._unlisted + 1 >= self._list_every

    @property
    def may_spare_the_state(self) -> bool:
        """Whether a pass that lists need not read the state too: another pass does."""
        return self._list_every > 1 and self._listed is not None

    def list(self) -> frozenset[str]:
        """List what is open."""
        self._listed, self._unlisted = self._store.list_queue().entries, 0
        return self._listed

    def leave_out(self, ended: AbstractSet[str]) -> frozenset[str]:
        """Say what is open, when these have left the holder's state since the last look."""
        self._unlisted += 1
        self._listed = (self._listed or frozenset()) - ended
        return self._listed
