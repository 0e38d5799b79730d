"""Reading ahead: slow pieces are fetched several at a time and handed on in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["growing_spans", "in_order", "near_ranges", "read_ahead"]

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    function: Callable[[T], R], tasks: Iterable[T], parallel: int, threads: int | None = None
) -> Generator[R, None, None]:
    """Yield ``function(task)`` of every task in order, computed on threads ahead of their use.

    It begins with one task at a time and takes twice as many with every result that is taken, up to
    `parallel`: whoever needs the first result only has not paid for the others. At most `parallel`
    results wait in memory. With one of `threads`, by default as many, tasks are never computed at
    the same time.
    """
    waiting: deque[Future[R]] = deque()
    ahead = 1
    with ThreadPoolExecutor(threads or parallel, "vwkit-ahead") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(function, task))
                while len(waiting) >= ahead:
                    yield waiting.popleft().result()
                    ahead = min(parallel, 2 * ahead)
                    if len(waiting) < ahead:
                        break
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_ahead(items: Generator[R, None, None], most: int) -> Generator[R, None, None]:
    """Yield the items of a generator, which runs on a thread of its own, at most `most` ahead."""
    end = object()

    def following(_: None) -> Any:
        return next(items, end)

    # The thread ends first, then what it ran.
    with (
        closing(items),
        closing(in_order(following, itertools.repeat(None), most, threads=1)) as ahead,
    ):
        for item in ahead:
            if item is end:
                return
            yield item


def growing_spans(stop: int, first: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut 0…stop into consecutive spans: `first` long, then twice as long each, up to `most`."""
    start, length = 0, first
    while start < stop:
        yield start, min(stop, start + length)
        start, length = start + length, min(most, 2 * length)


def near_ranges(
    rows: npt.NDArray[np.int64], gap: int, longest: int
) -> Iterator[tuple[npt.NDArray[Any], int, int]]:
    """Group ascending rows so that those near each other are read together.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
        Ascending; repeated rows are allowed.
    gap : int
        Rows with more rows than this between them are read apart.
    longest : int
        Rows of a range at most.

    Yields
    ------
    rows : ndarray of int64
        Some of the rows, in order.
    start, stop : int
        The range that holds them.
    """
    cuts = np.flatnonzero(np.diff(rows) > gap) + 1
    for part in np.split(rows, cuts):
        left = part
        while len(left):
            many = int(np.searchsorted(left, left[0] + longest))
            yield left[:many], int(left[0]), int(left[many - 1]) + 1
            left = left[many:]
