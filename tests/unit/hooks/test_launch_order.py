"""Launches under way at the same time: in order, and without asking twice for what is not there."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.launch_rate import LaunchRate, Turnstile
from airflow_ephemeral_ec2.hooks.parallel import in_threads, one_by_one
from airflow_ephemeral_ec2.model.arrivals import name_pool
from airflow_ephemeral_ec2.model.plan import plan_entry
from airflow_ephemeral_ec2.model.queue import PACED, EntryState, Stage, recall
from airflow_ephemeral_ec2.model.queue_orders import OrderAction, OrderTarget, QueueOrder
from airflow_ephemeral_ec2.model.sweep import MAX_FILTER_VALUES, find_launch_minutes
from tests.unit.hooks.scripted import name_of, refusal


def test_calls_begin_in_order_though_the_first_is_the_slowest_to_get_ready():
    names, begun = ["a", "b", "c"], []
    turnstile, ready = Turnstile(names, gap_seconds=0.0), threading.Event()

    def launch(name):
        if name == "a":
            ready.wait(5)
        turnstile.enter(name, f"offering of {name}", is_there=True)
        begun.append(name)
        if name == "c":
            return
        time.sleep(0.05)
        turnstile.leave(name)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(launch, name) for name in reversed(names)]
        ready.set()
        [one.result(5) for one in done]

    assert begun == names


def test_who_wants_an_offering_that_nobody_knows_to_be_there_waits_for_the_answer():
    turnstile, steps = Turnstile(["a", "b"], gap_seconds=0.0), []

    def first():
        turnstile.enter("a", "m7i.large", is_there=False)
        time.sleep(0.05)
        steps.append("a answered")
        turnstile.leave("a")

    def second():
        turnstile.enter("b", "m7i.large", is_there=False)
        steps.append("b asks")

    with ThreadPoolExecutor(2) as pool:
        [one.result(5) for one in [pool.submit(second), pool.submit(first)]]

    assert steps == ["a answered", "b asks"]


def test_one_that_leaves_without_a_call_holds_nobody_up():
    turnstile = Turnstile(["a", "b"], gap_seconds=0.0)
    turnstile.leave("a")

    turnstile.enter("b", "m7i.large", is_there=False)


def test_the_refusal_of_an_offering_holds_for_those_launched_at_the_same_time(
    store, fleet, clock, submit
):
    controller = Controller(store, lambda *_: fleet, in_parallel=in_threads)
    for letter in "abc":
        submit(letter * 40, instance_types=["m7i.large", "m6i.large"], subnets=["subnet-0a1"])
    fleet.refusals = [refusal("InsufficientInstanceCapacity", 500)]

    controller.tick()

    assert [request["InstanceType"] for request in fleet.requests] == [
        "m7i.large", "m6i.large", "m6i.large", "m6i.large",
    ]  # fmt: skip


def test_who_was_admitted_and_not_asked_for_gives_its_room_to_a_more_important_one(
    controller, fleet, store, submit
):
    """Launches are paced at five; the sixth has room and no machine when somebody comes."""
    for number in range(6):
        submit(f"{number}" * 40, limit=12, priority=100)
    controller.tick()
    assert len(fleet.requests) == 5
    high = submit("f" * 40, limit=12, priority=900)

    controller.tick()

    states = store.read_state()[0].entries
    assert states[f"{high.jobkey}-a1"].stage == "admitted"
    assert sum(state.stage == "waiting" for state in states.values()) == 1


def test_who_is_promoted_while_launches_are_paced_is_launched_next(
    controller, fleet, store, clock, submit
):
    """Room is there for all; EC2's pace is what they wait for."""
    for number in range(8):
        submit(f"{number}" * 40, payer=f"payer{number}")
    controller.tick()
    assert len(fleet.requests) == 5
    target = OrderTarget(payer="payer7", job="claims")
    store.write_order(
        QueueOrder(
            action=OrderAction.PROMOTE, target=target, by="ops", reason="late", at=clock.now()
        )
    )

    clock.at += 0.5
    controller.tick()

    assert len(fleet.requests) == 6
    assert controller.machine_of(f"{'7' * 40}-a1") == "i-5"


def test_who_waits_for_its_turn_is_told_so_once(controller, submit, clock):
    names = [name_of(submit(f"{number:040d}")) for number in range(8)]
    controller.tick()
    clock.at += 0.5
    controller.tick()

    told = [[line for line in controller.story_of(name) if PACED in line] for name in names]

    assert told == [[]] * 5 + [[f"{PACED}, {ahead} before this one"] for ahead in (1, 2, 3)]


def test_no_more_than_eight_are_launched_at_the_same_time(store, fleet, clock, submit):
    """However many EC2 would take: launches need a few threads, not one each."""
    at_once = []

    def in_parallel(function, items):
        at_once.append(len(list(items)))
        return one_by_one(function, items)

    controller = Controller(store, lambda *_: fleet, in_parallel=in_parallel)
    first = plan_entry(submit("f" * 40))
    controller._launching._rates[name_pool(first, {})] = LaunchRate(
        burst=1_000.0, monotonic=clock.now
    )
    for number in range(19):
        submit(f"{number:040d}")
    controller.tick()
    at_once.clear()
    controller.launch()

    assert len(fleet.requests) == 16
    assert max(at_once) == 8


@pytest.mark.parametrize("account", ["123456789012", ""])
def test_connections_into_one_account_share_its_pace_and_its_order(
    store, fleet, make_record, account
):
    """EC2 counts by account and region. Without an account each connection stands for one."""
    controller = Controller(store, lambda *_: fleet)
    for number in range(14):
        conn = ("aws_acme", "aws_pea")[number % 2]
        made = make_record(jobkey=f"{number:040d}", aws_conn_id=conn, priority=500 - number)
        record = store.write_launch(made.model_copy(update={"account": account}))
        store.write_entry(plan_entry(record))

    controller.tick()

    first = [f"{number:040d}" for number in range(14) if controller.machine_of(f"{number:040d}-a1")]
    assert len(first) == (5 if account else 10)
    assert first == [f"{number:040d}" for number in range(len(first))]


def test_whom_ec2_may_have_been_asked_for_keeps_its_room():
    admitted = EntryState(sequence=1, stage=Stage.ADMITTED, vcpus=2, admitted_at=1.0, pool="p")

    assert recall(admitted) == EntryState(sequence=1)
    for name in ("is_asked", "may_have_asked"):
        asked = admitted.model_copy(update={name: True})
        assert recall(asked) == asked


def test_the_frequent_look_names_the_minutes_of_the_launches():
    noon = 1_772_366_400.0  # 2026-03-01T12:00:00Z

    assert find_launch_minutes([noon + 5]) == [
        "2026-03-01T11:58:*", "2026-03-01T11:59:*", "2026-03-01T12:00:*", "2026-03-01T12:01:*",
    ]  # fmt: skip
    hours = find_launch_minutes(noon + 60 * n for n in range(600))
    assert hours[0] == "2026-03-01T11:*"
    assert len(hours) <= MAX_FILTER_VALUES
    assert find_launch_minutes([]) == []


def test_the_queue_is_listed_every_third_pass_and_at_once_for_a_name_that_is_new(
    store, fleet, clock, submit, monkeypatch
):
    from airflow_ephemeral_ec2.hooks.controller import Controller  # noqa: PLC0415

    lists = []
    look = store.list_queue
    monkeypatch.setattr(store, "list_queue", lambda: lists.append(1) or look())
    controller = Controller(store, lambda *_: fleet, list_every=3)
    first = f"{submit('a' * 40).jobkey}-a1"

    for _ in range(6):
        controller.follow([first])
    assert len(lists) == 2
    second = f"{submit('b' * 40).jobkey}-a1"
    controller.follow([first, second])

    assert len(lists) == 3
    assert controller.machine_of(second)


def test_an_order_whose_answer_was_lost_is_recorded_all_the_same(store, clock):
    """botocore repeats the write, and S3 says that the object is there: it is our own."""
    target = OrderTarget(payer="acme", job="claims")
    order = QueueOrder(
        action=OrderAction.HOLD, target=target, by="ops", reason="late", at=clock.now()
    )
    put, lost = store.s3.put_object, []

    def put_twice(**request):
        if "/queue/" in request["Key"] and not lost:
            lost.append(put(**request))
        return put(**request)

    store.s3.put_object = put_twice

    assert store.write_order(order)
    assert any("/history/acme/claims/" in key for key in store.s3.objects)
    assert not store.write_order(order.model_copy(update={"by": "somebody else"}))
