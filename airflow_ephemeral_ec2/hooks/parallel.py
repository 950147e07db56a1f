"""Many reads at once, by a few threads that end with them."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
_here = threading.local()
THREADS = 16
LEASE_LOOK_SECONDS = 0.2
"""How often the lease is looked at while others are asked: four tries of 20 s are longer than it."""


class Parallel(Protocol):
    """A ``map`` that returns a list; the first error is raised."""

    def __call__(
        self, function: Callable[[_Item], _Found], items: Iterable[_Item], /
    ) -> list[_Found]: ...


def in_threads(function: Callable[[_Item], _Found], items: Iterable[_Item], /) -> list[_Found]:
    """
    Call ``function`` for each item in at most 16 threads; results in the order of the items.

    What such a thread asks for in parallel it does itself: the clients have 16 connections.
    """
    given = list(items)
    if len(given) < 2 or getattr(_here, "is_one_of_many", False):
        return [function(item) for item in given]
    with ThreadPoolExecutor(min(THREADS, len(given)), initializer=_mark_thread) as pool:
        return list(pool.map(function, given))


def _mark_thread() -> None:
    _here.is_one_of_many = True


def one_by_one(function: Callable[[_Item], _Found], items: Iterable[_Item], /) -> list[_Found]:
    """Call ``function`` for each item in this thread."""
    return [function(item) for item in items]


def while_leased(
    in_parallel: Parallel,
    keep_lease: Callable[[], object],
    function: Callable[[_Item], _Found],
    items: Iterable[_Item],
) -> list[_Found]:
    """
    Call ``function`` for each item as ``in_parallel`` does, and keep the lease until all have answered.

    :param keep_lease: renews it when it is time; what it renews must not change meanwhile
    """
    given, found = list(items), list[_Found]()
    # As many at a time as leave one of the threads to the lease.
    for start in range(0, len(given), THREADS - 1):
        some = given[start : start + THREADS - 1]
        found += _call_while_leased(in_parallel, keep_lease, function, some)
    return found


def _call_while_leased(
    in_parallel: Parallel,
    keep_lease: Callable[[], object],
    function: Callable[[_Item], _Found],
    given: Sequence[_Item],
) -> list[_Found]:
    answered = threading.Semaphore(0)
    found: dict[int, _Found] = {}

    def call(number: int) -> None:
        try:
            found[number] = function(given[number])
        finally:
            answered.release()

    def keep() -> None:
        for _ in given:
            while not answered.acquire(timeout=LEASE_LOOK_SECONDS):
                keep_lease()

    # The last of them keeps the lease: where they come one by one, all others have answered then.
    last = len(given)
    in_parallel(lambda number: call(number) if number < last else keep(), range(last + 1))
    return [found[number] for number in range(last)]
