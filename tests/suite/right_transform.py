"""Transforms that are right, some of them unusual."""

from __future__ import annotations

import numpy as np

import vwkit


@vwkit.backend("scaled")
class Scaled(vwkit.Transform):
    """Divides by the largest magnitude that was seen in the fit."""

    deterministic = True

    def _fit(self, vectors):
        self._largest = float(np.abs(vectors).max()) or 1.0

    def _transform(self, vectors):
        return vectors / np.float32(self._largest)


def standardised(fitted_on, rows):
    """Return what `Standard` should."""
    wide = np.asarray(fitted_on, np.float64)
    spread = wide.std(axis=0)
    return (rows - wide.mean(axis=0)) / np.where(spread > 0, spread, 1)


@vwkit.backend("standard")
class Standard(vwkit.Transform):
    """Subtracts the mean and divides by the standard deviation; reads a Stream."""

    streams = True

    def _fit(self, vectors):
        chunks = [vectors] if isinstance(vectors, np.ndarray) else self._chunks(vectors)
        wide = np.concatenate([chunk.astype(np.float64) for chunk in chunks])
        self._mean, self._spread = wide.mean(axis=0), wide.std(axis=0)
        self._spread[self._spread == 0] = 1

    def _chunks(self, vectors):
        return list(vectors)

    def _transform(self, vectors):
        return ((vectors - self._mean) / self._spread).astype(np.float32)


@vwkit.backend("backwards")
class Backwards(vwkit.Transform):
    """Keeps the dtype: bytes stay bytes. It learns nothing."""

    dtypes = ("uint8", "float32")
    deterministic = True

    def _transform(self, vectors):
        return np.ascontiguousarray(vectors[:, ::-1])


@vwkit.backend("projected")
class Projected(vwkit.Transform):
    """Fewer columns, and a file of its own."""

    def _fit(self, vectors):
        wide = vectors.shape[1]
        self._axes = np.random.default_rng(0).normal(0, 1, (wide, max(1, wide // 2)))

    def _transform(self, vectors):
        # Row by row: a product of matrices would depend on how many there are.
        return (vectors[:, :, None] * self._axes).sum(axis=1)

    def _out_dim(self, dim):
        return self._axes.shape[1]

    def _save(self, folder):
        np.save(folder / "axes.npy", self._axes)

    def _load(self, folder):
        self._axes = np.load(folder / "axes.npy")
