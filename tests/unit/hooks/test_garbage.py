"""Python's collector: off while a large answer is read, and not let loose on thousands of triggers."""

import gc
import multiprocessing
import threading
import weakref
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.garbage import (
    LEAST_WAITING,
    MOST_COLLECTED,
    NEW_PART,
    TURNOVERS,
    Spared,
    SparedHeap,
    without_collections,
)


@pytest.fixture(autouse=True)
def _collector():
    """Begin with nothing set aside, and leave it as the other tests have it."""
    assert gc.isenabled()
    gc.unfreeze()
    yield
    gc.freeze()
    gc.enable()


def test_collections_are_off_inside_and_on_again_after_an_error():
    def read():
        with without_collections():
            assert not gc.isenabled()
            raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        read()
    assert gc.isenabled()


def test_the_last_of_two_threads_turns_them_on_again():
    has_entered, may_leave = threading.Event(), threading.Event()

    def read():
        with without_collections():
            has_entered.set()
            may_leave.wait(10)

    with without_collections():
        other = threading.Thread(target=read)
        other.start()
        assert has_entered.wait(10)
    assert not gc.isenabled()
    may_leave.set()
    other.join(10)
    assert gc.isenabled()


def test_who_had_them_off_keeps_them_off():
    gc.disable()
    with without_collections():
        pass
    assert not gc.isenabled()


def test_machines_are_read_without_collections():
    was_on = []

    def paginate(**_):
        for number in range(2):
            was_on.append(gc.isenabled())
            yield {"Reservations": [{"OwnerId": "1", "Instances": [{"InstanceId": f"i-{number}"}]}]}

    ec2 = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=paginate))
    fleet = Fleet(SimpleNamespace(ec2=ec2), "prod", "us-east-1")

    found = fleet.observe(["i-0", "i-1"], all_states=True).machines

    assert [machine.instance_id for machine in found] == ["i-0", "i-1"]
    assert was_on == [False, False]
    assert gc.isenabled()


def test_few_triggers_are_left_to_the_collector():
    assert Spared().next(LEAST_WAITING - 1, LEAST_WAITING - 1) == Spared()


def test_many_are_set_aside_and_then_only_when_there_are_many_new_ones():
    spared = Spared().next(8_000, 8_000)
    assert spared == Spared(8_000, 8_000, 8_000)
    assert spared.next(8_000, 8_999) is spared
    assert spared.next(8_000, 9_000) == Spared(8_000, 9_000, 8_000)


def test_all_is_looked_through_again_when_half_have_gone():
    spared = Spared(8_000, 8_000)
    assert spared.next(4_000, 8_000) is spared
    assert spared.next(3_999, 8_000) == Spared(0, 8_000, 8_000)


def test_all_is_looked_through_again_when_all_have_been_replaced_some_times():
    spared, looked_through = Spared().next(1_000, 1_000), []
    for arrived in range(1_200, 25_000, 200):
        before, spared = spared, spared.next(1_000, arrived)
        if spared.collected != before.collected:
            looked_through.append(arrived)
    assert looked_through == [1_000 * (1 + TURNOVERS), 1_000 * (1 + 2 * TURNOVERS)]


def test_so_many_that_a_look_at_all_would_stop_the_loop_wait_for_it_until_they_are_fewer():
    """0.7 s with 10,000; nothing else runs meanwhile."""
    many = MOST_COLLECTED + 1
    spared = Spared().next(many, many)
    for arrived in range(2 * many, 30 * many, many):
        spared = spared.next(many, arrived)
    assert spared.collected == many
    fewer = spared.next(MOST_COLLECTED, arrived + many)
    assert fewer.collected == arrived + many


def test_a_circle_that_was_set_aside_is_freed_after_some_turnovers():
    class Circle:
        def __init__(self):
            self.itself = self

    heap, circle = SparedHeap(), Circle()
    gone = weakref.ref(circle)
    heap.update(LEAST_WAITING, LEAST_WAITING)
    del circle
    gc.collect()
    heap.update(LEAST_WAITING, LEAST_WAITING * TURNOVERS)
    gc.collect()
    assert gone() is not None
    heap.update(LEAST_WAITING, LEAST_WAITING * (TURNOVERS + 1))
    assert gone() is None
    assert gc.get_freeze_count() > 0


def _read_in_child(answers):
    was_on = gc.isenabled()
    with without_collections():
        answers.send((was_on, gc.isenabled()))
    answers.send(gc.isenabled())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12
def test_a_child_that_is_forked_while_another_thread_reads_collects():
    parent, child = multiprocessing.Pipe()
    has_entered, may_leave = threading.Event(), threading.Event()

    def read():
        with without_collections():
            has_entered.set()
            may_leave.wait(10)

    reader = threading.Thread(target=read)
    reader.start()
    assert has_entered.wait(10)
    process = multiprocessing.get_context("fork").Process(target=_read_in_child, args=[child])
    process.start()
    may_leave.set()
    reader.join(10)
    assert parent.poll(10)
    assert parent.recv() == (True, False)
    assert parent.recv() is True
    process.join(10)
    assert process.exitcode == 0


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_what_is_not_set_aside_is_never_much(steps):
    spared, waiting, arrived = Spared(), 0, 0
    for newcomers, share_that_ends in steps:
        waiting = int((waiting + newcomers) * (1 - share_that_ends))
        arrived += newcomers
        spared = spared.next(waiting, arrived)
        if spared.waiting:
            newcomers_alive_at_most = min(arrived - spared.arrived, waiting)
            assert newcomers_alive_at_most < max(waiting / NEW_PART, LEAST_WAITING)
            assert waiting >= spared.waiting / 2
        else:
            # Nothing is set aside: few wait, or all who do have just been let in.
            assert waiting < LEAST_WAITING or arrived - spared.arrived < waiting / NEW_PART


def test_the_process_s_own_objects_are_set_aside_and_given_back():
    heap = SparedHeap()
    heap.update(10, 10)
    assert gc.get_freeze_count() == 0
    heap.update(LEAST_WAITING, LEAST_WAITING)
    assert gc.get_freeze_count() > 0
    heap.update(0, LEAST_WAITING)
    assert gc.get_freeze_count() == 0
