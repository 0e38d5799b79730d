"""The rotation of optimized product quantization, learned in turns with the codewords.

Ge, He, Ke, Sun 2013, "Optimized product quantization for approximate nearest neighbor search", the
non-parametric solution: while the codes are held, the best rotation solves an orthogonal Procrustes
problem; while the rotation is held, the codewords are k-means'. Where this ends depends on where it
starts, and no start is the best for all data (SIFT is best left in its own order, whitened networks'
outputs are not), so each is tried for some turns on few rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import derive_seed, sample_rows
from vwkit.jobs import Job
from vwkit.stream import row_spans
from vwkit.types import Array
from vwkit_numba.pq_tables import Table, reach_of
from vwkit_numba.pq_training import Training, encoded, readable, spread

__all__ = ["Turns", "turned"]

_FIRST_ITERATIONS, _ITERATIONS = 8, 2
#: Rows for each codeword: what the rotation is learned from, and what the starts are tried on.
_ROWS, _TRIED = 256, 32
_TRIED_TURNS = 3
_SPAN = 2048
_TINY = 1e-12


def turned(rows: Array, matrix: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """Return rows @ matrix, (n, e) float32, each row as if it came alone."""
    from vwkit_numba import pq_kernels

    kernel: Any = pq_kernels.turn
    rows, matrix = readable(rows), readable(matrix)
    out = np.empty((len(rows), matrix.shape[1]), np.float32)
    spread(lambda first, last: kernel(rows, first, last, matrix, out), len(rows), threads)
    return out


@dataclass
class _State:
    """What goes on from turn to turn: the rotation, (d, d) from the right, and the codewords."""

    matrix: NDArray[np.float32]
    codebook: NDArray[np.float32] | None = None
    error: float = np.inf


class Turns:
    """One running search for a rotation.

    Parameters
    ----------
    sample : (n, d) uint8 or float32
        The rows to learn from, at least ks.
    m, ks, seed : int
    job : Job
    """

    def __init__(self, sample: Array, m: int, ks: int, seed: int, job: Job) -> None:
        chosen = sample_rows(len(sample), _ROWS * ks, derive_seed(seed, "turns"))
        rows = np.asarray(sample[chosen], np.float64)
        # About the mean: else the rotation would serve it, and not the differences.
        rows -= rows.mean(axis=0)
        # Brought near 1, so that no product is too large or too small for float32.
        exponent = math.frexp(float(np.abs(rows).max()))[1]
        self.rows: NDArray[np.float32] = np.ldexp(rows, -exponent).astype(np.float32)
        self.m, self.ks, self.seed, self.job = m, ks, seed, job

    def run(self, turns: int) -> NDArray[np.float32]:
        """Return the rotation after so many turns: (d, d) float32, to be multiplied from the right."""
        step, state = self._taken_up() or (0, self._best_start())
        for turn in range(step, turns):
            self.job.check()
            self.job.progress(turn, turns + 1, "turns")
            book = self._turn(self.rows, state)
            self.job.checkpoint(turn + 1, {"matrix": state.matrix, "codebook": book})
        return state.matrix

    def _taken_up(self) -> tuple[int, _State] | None:
        saved = self.job.resume()
        if saved is None:
            return None
        dim = self.rows.shape[1]
        shapes = {name: array.shape for name, array in saved[1].items()}
        if shapes != {"matrix": (dim, dim), "codebook": (self.m, self.ks, dim // self.m)}:
            return None
        held = {name: np.ascontiguousarray(a, np.float32) for name, a in saved[1].items()}
        return saved[0], _State(held["matrix"], held["codebook"])

    def _best_start(self) -> _State:
        few = self.rows[: max(self.ks, _TRIED * self.ks)]
        tried = [_State(matrix) for matrix in self._starts()]
        for state in tried:
            for _ in range(_TRIED_TURNS):
                self._turn(few, state)
        best = min(tried, key=lambda state: state.error)
        return _State(best.matrix)

    def _starts(self) -> list[NDArray[np.float32]]:
        """Return where to start: as the data are, balanced by variance, at random."""
        dim = self.rows.shape[1]
        wide = self.rows.astype(np.float64)
        values, vectors = np.linalg.eigh(wide.T @ wide / len(wide))
        balanced = vectors[:, _balanced(values, self.m)]
        random = np.random.default_rng(self.seed).normal(size=(dim, dim))
        return [
            np.ascontiguousarray(one, np.float32)
            for one in (np.eye(dim), balanced, np.linalg.qr(random)[0])
        ]

    def _turn(self, rows: NDArray[np.float32], state: _State) -> NDArray[np.float32]:
        """Improve the codewords for the rotation, then the rotation for their codes."""
        threads = self.job.threads
        inner = self.job.within("turn")
        inner._progress = None
        moved = turned(rows, state.matrix, threads)
        first = state.codebook is None
        iterations = _FIRST_ITERATIONS if first else _ITERATIONS
        training = Training(moved, self.m, self.ks, iterations, self.seed, inner)
        book = state.codebook
        if book is None:
            book = training.start()
        book = training.refined(book)
        table = Table.of(book, moved.dtype, reach_of(book, moved))
        codes = encoded(table, moved, self.ks, threads)
        state.codebook, state.error = book, float(training.errors.sum())
        state.matrix = _procrustes(rows, book, codes)
        return book


def _procrustes(
    rows: NDArray[np.float32], book: NDArray[np.float32], codes: Array
) -> NDArray[np.float32]:
    """Return the rotation that brings rows nearest to what their codes stand for.

    Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem".
    """
    dim = rows.shape[1]
    total = np.zeros((dim, dim))
    for first, last in row_spans(len(rows), _SPAN):  # blocks stay in the cache
        wide = np.concatenate([one[codes[first:last, j]] for j, one in enumerate(book)], axis=1)
        total += rows[first:last].T @ wide
    left, _, right = np.linalg.svd(total)
    return np.ascontiguousarray(left @ right, np.float32)


def _balanced(values: NDArray[np.float64], m: int) -> NDArray[np.int64]:
    """Deal eigenvalues out to m slices of equal size so that their products are alike.

    Ge et al. 2013, section 3.2, "eigenvalue allocation".
    """
    width = len(values) // m
    logs = np.log(np.maximum(values, _TINY * max(float(values.max()), _TINY)))
    slices: list[list[int]] = [[] for _ in range(m)]
    sums = np.zeros(m)
    for place in np.argsort(-values, kind="stable"):
        able = [j for j in range(m) if len(slices[j]) < width]
        j = min(able, key=lambda one: (sums[one], one))
        slices[j].append(int(place))
        sums[j] += logs[place]
    return np.array(slices, np.int64).ravel()
