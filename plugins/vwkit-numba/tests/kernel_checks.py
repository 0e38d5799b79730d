"""Data, coordinates and passes that the tests of the compiled kernels share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vwkit_numba import kernels
from vwkit_numba.passes import Frame, Lists, Passes, padded_lists

from vwkit.jobs import Job
from vwkit.stream import Stream

FAR = float(kernels.FAR)
SEEDS = st.integers(0, 1 << 30)
DIMS = st.one_of(st.integers(1, 40), st.sampled_from([48, 100, 128]))


def quick(examples: int) -> settings:
    """Return settings; what is not yet compiled may take its time."""
    return settings(max_examples=examples, deadline=None)


def plain(dim: int) -> Frame:
    """Coordinates in which everything stays as it is."""
    return Frame(np.zeros(dim, np.float32), 1.0, False)


def over(rows: NDArray[Any], frame: Frame, weights: Any = None, threads: int = 1) -> Passes:
    return Passes(Stream.from_array(rows), weights, frame, Job(threads=threads), 0)


def moved(rows: NDArray[Any], frame: Frame) -> NDArray[np.float64]:
    """Return rows in inner coordinates, without what fills the dimensions up."""
    found = (rows.astype(np.float64) - frame.shift) * frame.scale
    if frame.unit:
        lengths = np.sqrt((found**2).sum(axis=1, keepdims=True))
        found /= np.where(lengths > 0, lengths, 1)
    return found


def whole(rng: np.random.Generator, rows: int, dim: int, dtype: Any) -> NDArray[Any]:
    """Return whole numbers, now and then so few that many distances are equal."""
    high = int(rng.choice([2, 4, 256]))
    return rng.integers(0, high, (rows, dim)).astype(dtype)


def some_lists(rng: np.random.Generator, k: int, groups: int) -> tuple[list[Any], Lists]:
    """Return ascending lists of some centers each, and the same filled up."""
    parts = [
        np.sort(rng.choice(k, size=int(rng.integers(1, k + 1)), replace=False))
        for _ in range(groups)
    ]
    return parts, padded_lists(parts, k)
