"""Which files were taken, and by which run: ``{env}/landed/{payer}`` in the bucket of record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.exceptions import TamperedObjectError
from airflow_ephemeral_ec2.model.landing import Taken, Taking
from airflow_ephemeral_ec2.model.spec import Spec

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.hooks.job_store import JobStore


class Owner(Spec):
    """Who took an object."""

    version: int = 1
    run: str
    business_date: str


class LandingRecords:
    """
    What the runs of one payer have taken; all writes are conditional, the first one wins.

    :raises AwsError: the bucket of record cannot be used
    """

    def __init__(self, store: JobStore, payer: str) -> None:
        self._store = store
        self._base = f"{store.environment}/landed/{payer}"

    def read_taking(self, run: str, number: int = 1) -> Taking | None:
        """
        Read what a run decided to take before its task was tried again.

        :param number: from 1; there is a next one only where others were first for all of this one
        """
        return self._store.read_model(self._taking_key(run, number), Taking)

    def settle_taking(self, run: str, taking: Taking, number: int = 1) -> Taking:
        """Write a run's decision once; return the one that counts."""
        key = self._taking_key(run, number)
        if self._store.write_new(key, taking.model_dump_json().encode()):
            return taking
        settled = self._store.read_model(key, Taking)
        if settled is None:
            raise TamperedObjectError(f"s3://{self._store.bucket}/{key}", "it was there just now.")
        return settled

    def _taking_key(self, run: str, number: int) -> str:
        return f"{self._base}/runs/{run}{f'.{number}' if number > 1 else ''}.json"

    def find_owner(self, digest: str) -> str | None:
        """Name the run that took an object."""
        owner = self._store.read_model(f"{self._base}/objects/{digest}.json", Owner)
        return None if owner is None else owner.run

    def take(self, run: str, taken: Taken) -> bool:
        """Take an object for a run; True also when that run has it already (a retry)."""
        body = Owner(run=run, business_date=taken.business_date).model_dump_json().encode()
        if self._store.write_new(f"{self._base}/objects/{taken.digest}.json", body):
            return True
        return self.find_owner(taken.digest) == run

    def note_date(self, run: str, business_date: str) -> int:
        """Note that a run starts work for a date; return how many other runs did before."""
        prefix = f"{self._base}/dates/{business_date}/"
        mine = f"{prefix}{run}.json"
        self._store.write_new(mine, b"{}")
        return sum(key != mine for key in self._store.list_keys(prefix))
