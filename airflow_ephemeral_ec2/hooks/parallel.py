"""Many reads at once, by a few threads that end with them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
THREADS = 16


class Parallel(Protocol):
    """A ``map`` that returns a list; the first error is raised."""

    def __call__(
        self, function: Callable[[_Item], _Found], items: Iterable[_Item], /
    ) -> list[_Found]: ...


def in_threads(function: Callable[[_Item], _Found], items: Iterable[_Item], /) -> list[_Found]:
    """Call ``function`` for each item in at most 16 threads; results in the order of the items."""
    given = list(items)
    if len(given) < 2:
        return [function(item) for item in given]
    with ThreadPoolExecutor(min(THREADS, len(given))) as pool:
        return list(pool.map(function, given))


def one_by_one(function: Callable[[_Item], _Found], items: Iterable[_Item], /) -> list[_Found]:
    """Call ``function`` for each item in this thread."""
    return [function(item) for item in items]
