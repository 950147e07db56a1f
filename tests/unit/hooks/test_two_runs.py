"""Two runs of one payer and date, as one controller decides about them."""

from hashlib import sha256

import pytest

from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue_view import view_queue
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.hooks.scripted import name_of, report

READERS = {"member": ("eligibility", "claims"), "eligibility": ("claims",)}


@pytest.fixture
def ask(store, make_record):
    """Let a run ask for a job; the key of its job is made of both."""

    def ask(run, job, limit=96, **changes):
        jobkey = sha256(f"{job} of {run}".encode()).hexdigest()[:40]
        made = make_record(jobkey=jobkey, run_key=run, job=job, **changes)
        made = made.model_copy(
            update={"limits": Limits(vcpus=limit), "dependents": READERS.get(job, ())}
        )
        record = store.write_launch(made)
        store.write_date_index(record)
        store.write_entry(plan_entry(record))
        return record

    return ask


def test_who_misses_a_success_does_not_keep_the_job_waiting_that_would_give_it(
    controller, fleet, ask
):
    """Claims of run two waits for eligibility of run one, and could not begin without member."""
    ask("one", "eligibility", priority=950)
    controller.tick()
    member = ask("one", "member", priority=500)
    claims = ask("two", "claims", priority=900, depends_on=["member", "eligibility"])

    controller.tick()

    assert controller.machine_of(name_of(member)) == "i-1"
    assert "waits for a success of acme/" in controller.story_of(name_of(claims))[-1]


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_row_that_opts_out_waits_for_no_other_run(controller, fleet, ask, is_bound):
    ask("one", "claims")
    ask("two", "claims", cross_run_order=is_bound)

    controller.tick()

    assert len(fleet.requests) == (1 if is_bound else 2)


def test_an_open_dependency_that_opted_out_holds_up_no_other_run(controller, fleet, store, ask):
    """Its first run has succeeded; the second one waits behind everybody else."""
    first = ask("one", "member", cross_run_order=False)
    controller.tick()
    report(store, first, "i-0")
    fleet.set("i-0", "terminated")
    controller.tick()
    ask("two", "member", cross_run_order=False, max_wait="1h", priority=1, limit=2)
    claims = ask("one", "claims", depends_on=["member"], priority=900, limit=2)

    controller.tick()

    assert controller.machine_of(name_of(claims)) == "i-1"


def test_the_queue_shows_what_the_controller_tells_its_task(controller, store, clock, ask):
    ask("one", "claims")
    controller.tick()
    second = ask("two", "claims")
    controller.tick()

    view = view_queue(QueueReader(store).read())

    (row,) = [row for pool in view.pools for row in pool.rows]
    assert row.entry.name == name_of(second)
    assert row.why == "waits for another run of payer_acme, which does the same now"
    assert controller.story_of(name_of(second))[-1] == f"queued: {row.why}"
