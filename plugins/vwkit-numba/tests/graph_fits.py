"""Data and fits that the tests of graph k-means share."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray
from vwkit_numba import GraphKMeans

from vwkit.errors import FewDistinctRows
from vwkit.jobs import Job, use_job
from vwkit.reference import lloyd as reference

SEEDS = st.integers(0, 1 << 30)


def blobs(
    rows: int = 3000, dim: int = 8, clusters: int = 60, seed: int = 0, spread: float = 5
) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    centers = rng.integers(30, 226, (clusters, dim))
    found = centers[rng.integers(0, clusters, rows)] + rng.normal(0, spread, (rows, dim))
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def everything(fitted: GraphKMeans) -> list[bytes]:
    """Return all that a fit leaves behind."""
    kept = [fitted.centers, fitted.labels, fitted.objective, fitted.changed, fitted.moved]
    state = [fitted._lists, fitted._coarse, fitted._members, fitted._starts, fitted._shift]
    return [np.asarray(one).tobytes() for one in (*kept, *state)]


def fitted_quietly(data: Any, weights: Any = None, **params: Any) -> tuple[GraphKMeans, list[str]]:
    """Fit on one thread; return also the warnings about few distinct rows."""
    with warnings.catch_warnings(record=True) as caught, use_job(Job(threads=1)):
        warnings.simplefilter("always")
        model = GraphKMeans(**params).fit(data, weights)
    assert {one.category for one in caught} <= {FewDistinctRows}
    return model, [str(one.message) for one in caught]


def recomputed(model: GraphKMeans, data: Any, weights: Any = None) -> float:
    """Return the objective of the centers and labels, in float64."""
    return reference.objective(data, model.centers, model.labels, weights, model.metric)


def check(model: GraphKMeans, data: NDArray[Any], weights: Any = None) -> None:
    """Check what holds of every fit."""
    rows, k = len(data), model.k
    assert model.centers.shape == (k, data.shape[1])
    assert model.centers.dtype == np.float32
    assert np.isfinite(model.centers).all()
    assert model.labels.shape == (rows,)
    assert model.labels.dtype == np.int32
    assert model.labels.min() >= 0
    assert model.labels.max() < k
    assert all(math.isfinite(value) for value in model.objective)
    assert len(model.changed) == len(model.objective)
    wide = data.astype(np.float64)
    spread = float(((wide - wide.mean(axis=0)) ** 2).sum(axis=1).max())
    spread = 1.0 if model.spherical else spread
    assert model.objective[-1] == pytest.approx(
        recomputed(model, data, weights), rel=1e-4, abs=1e-6 * spread
    )
    if model.spherical:
        lengths = np.linalg.norm(model.centers.astype(np.float64), axis=1)
        assert ((np.abs(lengths - 1) < 1e-6) | (lengths == 0)).all()
    elif not model.moved[-1]:  # those just put beside each other are no means yet
        # Means lie within the data.
        slack = 1e-6 * np.abs(wide).max(axis=0)
        assert (model.centers >= wide.min(axis=0) - slack).all()
        assert (model.centers <= wide.max(axis=0) + slack).all()


def used(model: GraphKMeans, weights: Any = None) -> int:
    """Return how many clusters have weight."""
    mass = np.bincount(model.labels, weights=weights, minlength=model.k)
    return int((mass > 0).sum())


PARAMS: dict[str, Any] = {"k": 120, "iterations": 6, "neighbours": 16}


class Stop(Exception):
    """The work is cut off here."""


class Always(Job):
    """A job that keeps every checkpoint, whatever it costs, and may be cut off behind one."""

    def __init__(self, folder: Path, last: int | None = None) -> None:
        super().__init__(threads=1, folder=folder)
        self.last, self.steps = last, 0

    def checkpoint(self, step: int, arrays: Any) -> None:
        self._free_from = 0.0
        super().checkpoint(step, arrays)
        self.steps += 1
        if step == self.last:
            raise Stop


class Watched(Job):
    """A job that remembers every checkpoint."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.seen: list[dict[str, Any]] = []

    def checkpoint(self, step: int, arrays: Any) -> None:
        self.seen.append({name: np.array(array) for name, array in arrays.items()})
        assert step == len(self.seen)
