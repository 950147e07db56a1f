"""A kill that dies half way: whatever was done of it, the controller does the rest."""

import pytest

from airflow_ephemeral_ec2.hooks.attempts import kill_attempt
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.model.outcome import Kill, Outcome
from tests.unit.hooks.scripted import lock_for, name_of, outcome_of


class ProcessDeath(BaseException):
    """As by SIGKILL: nothing after it is done, and nobody catches it."""


class MortalStore(JobStore):
    """A bucket whose user dies instead of revoking."""

    def revoke_start_lock(self, *_):
        raise ProcessDeath


class MortalFleet:
    """Machines whose user dies at one call."""

    def __init__(self, fleet, dies_at):
        self._fleet, self._dies_at = fleet, dies_at

    def find_attempt(self, *given):
        if self._dies_at == "look for machines":
            raise ProcessDeath
        return self._fleet.find_attempt(*given)

    def terminate(self, _):
        raise ProcessDeath


@pytest.mark.parametrize("dies_at", ["revoke", "look for machines", "terminate"])
def test_K6_a_kill_that_dies_half_way_is_completed(controller, fleet, store, submit, dies_at):
    record = submit()
    controller.tick()
    lock_for(store, record)
    fleet.set("i-0", "running")
    mortal = MortalStore(store.s3, store.bucket, store.environment)

    with pytest.raises(ProcessDeath):
        kill_attempt(
            mortal if dies_at == "revoke" else store,
            MortalFleet(fleet, dies_at),
            record.jobkey,
            1,
            Kill("cancelled", by="Airflow (task failed)"),
        )
    before = list(fleet.terminated)
    controller.tick()

    assert before == []
    assert fleet.terminated == ["i-0"]
    fleet.set("i-0", "terminated", reason="Client.UserInitiatedShutdown")
    outcome = outcome_of(controller, record)
    assert (outcome.outcome, outcome.reason) == (
        Outcome.KILLED,
        "cancelled by Airflow (task failed)",
    )


def test_K6_a_kill_that_dies_before_the_launch_leaves_no_machine(controller, fleet, store, submit):
    """The controller has not launched yet; the kill request alone is enough."""
    record = submit()
    mortal = MortalStore(store.s3, store.bucket, store.environment)

    with pytest.raises(ProcessDeath):
        kill_attempt(mortal, fleet, record.jobkey, 1, Kill("cancelled"))

    assert outcome_of(controller, record).outcome is Outcome.KILLED
    assert not fleet.terminated
    assert name_of(record) not in store.list_queue().entries
