"""Nobody less important passes, and no limit is exceeded: the least that admission promises."""

import pytest

from airflow_ephemeral_ec2.model.admission import Because, Queue, admit
from airflow_ephemeral_ec2.model.queue import EntryState, QueueEntry, Stage
from airflow_ephemeral_ec2.model.spec import Limits

POOL = "us-east-1/123456789012"
NOW = 1_000.0


def entry(name: str, priority: int, vcpus: int, max_runtime: int = 3_600) -> QueueEntry:
    return QueueEntry(
        jobkey=name,
        attempt=1,
        nonce="n",
        payer="acme",
        job=name,
        business_date="2026-03-01",
        priority=priority,
        vcpus=vcpus,
        capacity_type="on-demand",
        depends_on=(),
        max_runtime=max_runtime,
        max_wait=None,
        requested_at=1.0,
        supersedes=None,
        table_version="t",
        title=name,
    )


def decide(entries, limit, running=0):
    """Admit; ``running`` entries at the front are out already."""
    states = {
        one.name: EntryState(sequence=number, vcpus=one.vcpus, pool=POOL, launched_at=NOW,
                             stage=Stage.LAUNCHED if number < running else Stage.WAITING)
        for number, one in enumerate(entries)
    }  # fmt: skip
    queue = Queue(entries, states, dict.fromkeys(states, POOL))
    return admit(queue, {POOL: Limits(vcpus=limit)}, NOW)


def test_a_small_job_does_not_pass_a_big_one_that_it_would_delay():
    small, big = entry("small", 100, 2, max_runtime=36_000), entry("big", 900, 8)
    running = entry("running", 500, 4)

    found = decide([running, small, big], 8, running=1)

    assert found.admitted == ()
    assert found.waiting[big.name].because is Because.ROOM
    assert found.waiting[small.name].behind == big.name


@pytest.mark.parametrize(("limit", "admitted"), [(1, 0), (3, 1), (4, 2), (5, 2), (100, 3)])
def test_what_is_admitted_stays_within_the_limit(limit, admitted):
    found = decide([entry(name, 500, 2) for name in "abc"], limit)

    assert len(found.admitted) == admitted


def test_what_is_out_already_counts():
    found = decide([entry("running", 1, 6), entry("next", 900, 4)], 8, running=1)

    assert found.admitted == ()
