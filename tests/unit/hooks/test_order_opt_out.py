"""Who need not wait for what the row depends on: a row that opts out, and a run that says why."""

import pytest

from airflow_ephemeral_ec2.model.plan import plan_entry
from tests.unit.hooks.scripted import name_of


@pytest.fixture
def ask(store, make_record):
    def ask(override="", **changes):
        made = make_record(depends_on=["member"], **changes)
        record = store.write_launch(made.model_copy(update={"order_override": override}))
        store.write_date_index(record)
        store.write_entry(plan_entry(record))
        return record

    return ask


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_row_that_opts_out_waits_for_no_recorded_success(controller, fleet, ask, is_bound):
    record = ask(cross_run_order=is_bound)

    controller.tick()

    assert len(fleet.requests) == (0 if is_bound else 1)
    if is_bound:
        assert "waits for a success of acme/member" in controller.story_of(name_of(record))[-1]


@pytest.mark.parametrize("override", ["", "the payer called"])
def test_an_override_waits_for_no_open_attempt(controller, ask, submit, override):
    submit("b" * 40, job="member")
    record = ask(override)

    controller.tick()

    assert (controller.machine_of(name_of(record)) is None) == (not override)


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_row_that_opts_out_waits_for_no_open_attempt(controller, store, ask, submit, is_bound):
    submit("b" * 40, job="member")
    record = ask(cross_run_order=is_bound)

    controller.tick()

    assert (controller.machine_of(name_of(record)) is None) == is_bound


def test_an_override_opts_one_run_out_and_is_told_and_kept_with_its_reason(controller, store, ask):
    bound = ask(jobkey="b" * 40)
    free = ask("the payer called", jobkey="c" * 40)

    controller.tick()

    assert controller.machine_of(name_of(bound)) is None
    assert controller.machine_of(name_of(free)) == "i-0"
    told = "does not wait for what it depends on: the payer called"
    assert told in controller.story_of(name_of(free))
    assert store.read_launch(free.jobkey, 1).order_override == "the payer called"
