"""The nodes of a vocabulary tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ArtifactError
from vwkit.stream import row_spans
from vwkit_numba.frames import Frame, inner

__all__ = ["Nodes", "checked_first", "parents"]

_ROWS = 1 << 16


@dataclass(frozen=True)
class Nodes:
    """A tree's nodes as kernels take them.

    Attributes
    ----------
    first : (N + 1,) int64
        The children of node i are the nodes ``first[i]`` to ``first[i + 1]``; node 0 is the root.
    centers : (N + spare, D) float32, in inner coordinates
    half : (N,) float32, ‖c‖²/2
    words : (N,) int32
        The word of each node without children, in their order; −1 for the others.
    """

    first: NDArray[np.int64]
    centers: NDArray[np.float32]
    half: NDArray[np.float32]
    words: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        first: NDArray[np.int64],
        parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
        frame: Frame,
    ) -> Nodes:
        """Bring centers, given as numbers and centers (m, d) of some nodes, into one array."""
        from vwkit_numba.tree_kernels import SPARE

        centers = np.zeros((len(first) - 1 + SPARE, frame.wide), np.float32)
        half = np.zeros(len(first) - 1, np.float32)
        for numbers, given in parts:
            for start, stop in row_spans(len(numbers), _ROWS):
                moved, offsets = inner(given[start:stop], frame)
                centers[numbers[start:stop]] = moved[:-1]
                half[numbers[start:stop]] = offsets[:-1]
        leaf = np.diff(first) == 0
        words = np.where(leaf, np.cumsum(leaf) - 1, -1).astype(np.int32)
        return cls(np.array(first, np.int64), centers, half, words)


def parents(first: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the parent of each node, (N,) int32; the root is its own."""
    above = np.zeros(len(first) - 1, np.int32)
    above[1:] = np.repeat(np.arange(len(above), dtype=np.int32), np.diff(first))
    return above


def checked_first(first: Any) -> NDArray[np.int64]:
    """Return a saved `first` if it is of a tree: every node but the root has one parent before it.

    Raises
    ------
    ArtifactError
    """
    array = np.asarray(first)
    fine = array.ndim == 1 and array.dtype == np.int64 and 2 <= len(array) < 1 << 31
    if fine:
        count = len(array) - 1
        fine = (
            array[0] == 1
            and array[-1] == count
            and bool((array[1:] >= array[:-1]).all())
            and bool((array[:-1] > np.arange(count)).all())
        )
    if not fine:
        raise ArtifactError("tree: the saved nodes are not a tree; damaged, make it again")
    return np.array(array)
