"""Data, checks and comparisons that the tests of the vocabulary tree share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from vwkit_numba import VocabularyTree

from vwkit.stream import Stream


def blobs(rows: int = 3000, dim: int = 9, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    places = rng.integers(20, 236, (60, dim))
    return (places[rng.integers(0, 60, rows)] + rng.integers(-15, 16, (rows, dim))).astype(np.uint8)


def node_centers(tree: VocabularyTree) -> NDArray[np.float64]:
    """Return the center of every node, the root's as NaN where nobody asks for it."""
    leaf = np.diff(tree._first) == 0
    centers = np.full((len(leaf), tree.centers.shape[1]), np.nan)
    centers[leaf] = tree.centers
    inside = np.flatnonzero(~leaf)
    centers[inside[inside > 0]] = tree._inside
    return centers


def slowly(tree: VocabularyTree, row: NDArray[Any]) -> tuple[int, float]:
    """Go down with plain numbers; return the word, and how close the closest choice was."""
    first, centers = tree._first, node_centers(tree)

    def far(node: int) -> float:
        return float(((row.astype(np.float64) - centers[node]) ** 2).sum())

    beam, closest = [0], np.inf
    while any(first[node] < first[node + 1] for node in beam):
        found: list[int] = []
        for node in beam:
            children = range(first[node], first[node + 1])
            found += children if len(children) else [node]
        found.sort(key=lambda node: (far(node), node))
        values = [far(node) for node in found]
        for end in {1, tree.beam}:
            if end < len(values):
                closest = min(closest, values[end] - values[end - 1])
        beam = found[: tree.beam]
    leaves = np.flatnonzero(np.diff(first) == 0)
    return int(np.searchsorted(leaves, beam[0])), closest


def check(tree: VocabularyTree, rows: NDArray[Any]) -> None:
    """Check everything that holds of a fitted tree."""
    first = tree._first
    sizes = np.diff(first)
    assert first[0] == 1
    assert first[-1] == len(first) - 1
    assert (first[:-1] > np.arange(len(sizes))).all()
    assert sizes.max() <= tree.branch
    assert len(tree.centers) == np.count_nonzero(sizes == 0) <= tree.branch**tree.depth
    assert tree.path(np.arange(len(tree.centers))).shape[1] <= tree.depth
    assert np.array_equal(tree.predict(rows), tree.labels)
    own = tree.centers[tree.labels].astype(np.float64)
    error = float(((rows.astype(np.float64) - own) ** 2).sum(axis=1).mean())
    scale = float(np.abs(rows.astype(np.float64)).max()) ** 2 * rows.shape[1] + 1
    assert tree.objective[-1] == pytest.approx(error, rel=1e-4, abs=1e-6 * scale)
    if tree.beam == 1:
        assert (np.bincount(tree.labels, minlength=len(tree.centers)) > 0).all()


def cut(rows: NDArray[Any], step: int) -> Stream:
    def chunks() -> Iterator[NDArray[Any]]:
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    return Stream(chunks, dim=rows.shape[1], dtype=rows.dtype, rows=len(rows))


def everything(tree: VocabularyTree) -> list[bytes]:
    arrays = [tree.centers, tree.labels, tree._first, tree._inside, np.array(tree.objective)]
    return [np.asarray(array).tobytes() for array in arrays]
