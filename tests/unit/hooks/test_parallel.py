"""How many threads there are, and what becomes of an error."""

import threading

import pytest

from airflow_ephemeral_ec2.hooks.parallel import THREADS, in_threads, one_by_one, while_leased


def test_results_come_in_the_order_of_the_items():
    assert in_threads(lambda number: number * 2, range(100)) == list(range(0, 200, 2))


def test_what_is_asked_from_one_of_the_threads_makes_no_more_threads():
    """S3's clients have a connection for each of the threads and not for their square."""
    together, seen = threading.Barrier(2, timeout=5), set()

    def inner(_):
        seen.add(threading.get_ident())

    def outer(_):
        seen.add(threading.get_ident())
        together.wait()
        in_threads(inner, range(THREADS))

    in_threads(outer, range(2))

    assert len(seen) == 2


def test_after_that_there_are_threads_again():
    together = threading.Barrier(2, timeout=5)

    assert len(in_threads(lambda _: together.wait(), range(2))) == 2


@pytest.mark.parametrize("in_parallel", [in_threads, one_by_one])
def test_an_error_while_the_lease_is_kept_comes_out_at_once(in_parallel):
    def fail(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        while_leased(in_parallel, lambda: None, fail, [1])


@pytest.mark.parametrize("in_parallel", [in_threads, one_by_one])
@pytest.mark.parametrize("count", [0, 1, THREADS, 3 * THREADS])
def test_all_answers_come_while_the_lease_is_kept(in_parallel, count):
    found = while_leased(in_parallel, lambda: None, lambda number: -number, range(count))

    assert found == [-number for number in range(count)]


def test_the_lease_is_looked_at_however_many_hang():
    """They all do when EC2 has an outage, for longer than a lease is good for."""
    is_looked_at = threading.Event()

    found = while_leased(
        in_threads, is_looked_at.set, lambda _: is_looked_at.wait(10), range(3 * THREADS)
    )

    assert all(found)
