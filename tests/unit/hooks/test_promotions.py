"""How long a promotion lasts: until the attempt that it was given for has ended, no shorter or longer."""

import pytest

from airflow_ephemeral_ec2.model.outcome import Kill
from airflow_ephemeral_ec2.model.queue import Stage
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, OrderTarget, QueueOrder
from tests.unit.hooks.scripted import name_of, report


@pytest.fixture
def promote(store, clock):
    def promote(record):
        target = OrderTarget.of(store.read_entry(name_of(record)))
        order = QueueOrder(
            action=OrderAction.PROMOTE, target=target, by="ops", reason="late", at=clock.now()
        )
        assert store.write_order(order)
        return order

    return promote


@pytest.fixture
def end(store, fleet, controller):
    """Let the machine of an attempt end, with an exit code."""

    def end(record, exit_code=0):
        instance_id = fleet.tokens[record.placements[0].client_token]
        report(store, record, instance_id, exit_code)
        fleet.set(instance_id, "terminated", reason="Client.InstanceInitiatedShutdown")
        controller.tick()

    return end


def launched(store, record):
    return store.read_state()[0].entries[name_of(record)].stage is Stage.LAUNCHED


def test_the_end_of_one_part_of_an_array_ends_no_promotion_but_its_own(
    controller, store, submit, promote, end, clock
):
    """Room for one; the second part was promoted and another job is more important."""
    array = {"limit": 2, "array_size": 2, "priority": 100}
    first = submit("1" * 40, **array)
    controller.tick()
    second = submit("2" * 40, array_index=1, **array)
    other = submit("3" * 40, limit=2, job="member", priority=900)
    orders = [promote(first), promote(second)]
    controller.tick()

    end(first)

    assert store.list_queue().orders == {orders[1].key}
    assert launched(store, second)
    assert not launched(store, other)
    end(second)
    assert store.list_queue().orders == frozenset()


def test_a_retry_of_what_was_promoted_stands_where_it_would_have_stood(
    controller, store, submit, promote, end
):
    first = submit("1" * 40, limit=2, priority=100)
    promote(first)
    controller.tick()
    retry = submit("1" * 40, limit=2, priority=100, attempt=2, supersedes=1)
    other = submit("3" * 40, limit=2, job="member", priority=900)

    end(first, exit_code=75)

    assert launched(store, other)
    assert not launched(store, retry)


def test_the_end_of_the_attempt_before_leaves_the_next_one_promoted(
    controller, store, submit, promote, end
):
    first = submit("1" * 40, limit=2, priority=100)
    controller.tick()
    following = submit("1" * 40, limit=2, priority=100, attempt=2, supersedes=1)
    other = submit("3" * 40, limit=2, job="member", priority=900)
    promote(following)
    controller.tick()

    end(first, exit_code=75)
    controller.tick()

    assert launched(store, following)
    assert not launched(store, other)


def test_one_that_is_withdrawn_while_it_waits_takes_its_promotion_along(
    controller, store, submit, promote
):
    submit("1" * 40, limit=2)
    controller.tick()
    waiting = submit("2" * 40, limit=2)
    promote(waiting)
    controller.tick()
    assert store.list_queue().orders

    store.write_kill(name_of(waiting), Kill("cleared"))
    controller.tick()

    assert store.list_queue().orders == frozenset()


def test_a_promotion_that_nobody_took_back_means_nobody_any_more(
    controller, store, submit, promote
):
    """It came while its attempt was being ended: a retry does not inherit it."""
    gone = submit("1" * 40, limit=2, priority=100)
    left = promote(gone)
    store.close_entry(name_of(gone))
    other = submit("3" * 40, limit=2, job="member", priority=900)
    retry = submit("1" * 40, limit=2, priority=100, attempt=2)

    controller.tick()

    assert store.list_queue().orders == {left.key}
    assert launched(store, other)
    assert not launched(store, retry)


def test_an_order_that_was_gone_when_it_was_read_counts_when_it_is_given_again(
    controller, store, submit, clock
):
    """Released between listing and reading, and held again before the next listing."""
    submit("1" * 40, limit=2)
    controller.tick()
    record = submit("2" * 40, limit=2, job="member")
    target = OrderTarget(payer=record.spec.payer, job="member")
    order = QueueOrder(
        action=OrderAction.HOLD, target=target, by="ops", reason="bad file", at=clock.now()
    )
    assert store.write_order(order)
    read_order = store.read_order
    store.read_order = lambda _key: None
    controller.tick()
    store.read_order = read_order

    controller.tick()

    assert any("bad file" in line for line in controller.story_of(name_of(record)))
