"""A controller over a scripted fleet: the store is real, bucket and machines are values."""

import time
from email.utils import formatdate

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.parallel import one_by_one
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import EntryState, QueueState, Stage
from airflow_ephemeral_ec2.model.spec import Limits
from tests.state_machine.simulated_s3 import SimulatedS3
from tests.unit.hooks.scripted import ScriptedFleet, Turnable, name_of


class HostClock:
    """The time of this host, as S3's answers carry it."""

    @property
    def metadata(self):
        return {"HTTPHeaders": {"date": formatdate(time.time(), usegmt=True)}}


@pytest.fixture
def store():
    """A bucket in memory: moto takes 3 ms a call. test_simulated_s3.py compares their answers."""
    return JobStore(SimulatedS3(HostClock(), lambda *_: None), "records", "test")


@pytest.fixture
def fleet():
    return ScriptedFleet()


@pytest.fixture
def clock(store):
    store.clock = Turnable()
    return store.clock


@pytest.fixture
def controller(store, fleet, clock):
    return Controller(store, lambda _connection, _region: fleet, in_parallel=one_by_one)


@pytest.fixture
def submit(store, make_record):
    def submit(jobkey="a" * 40, limit=96, **changes):
        made = make_record(jobkey=jobkey, **changes)
        limited = made.model_copy(update={"limits": Limits(vcpus=limit)})
        record = store.write_launch(limited)
        store.write_entry(plan_entry(record))
        return record

    return submit


@pytest.fixture
def launch_many(store, fleet, make_record):
    """Attempts whose machines are out, launched by a controller that is dead now."""

    def launch_many(count):
        made, states, records = make_record(), {}, []
        for number in range(count):
            record = made.model_copy(update={"jobkey": f"{number:040d}"})
            store.write_launch(record)
            store.write_entry(plan_entry(record))
            fleet.set(f"i-{number}", "running")
            fleet.tokens[f"token-{number}"] = f"i-{number}"
            records.append(record)
            states[name_of(record)] = EntryState(
                sequence=number, stage=Stage.LAUNCHED, instance_id=f"i-{number}", launched_at=990.0
            )
        store.write_state(QueueState(entries=states), None)
        return records

    return launch_many
