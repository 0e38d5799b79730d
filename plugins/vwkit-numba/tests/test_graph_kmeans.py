"""Graph k-means against the slow reference, and what each of its shortcuts must not change."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vwkit_numba import GraphKMeans, fitting, folding, graph_kmeans, passes, predicting
from vwkit_numba.fitting import Fit
from vwkit_numba.passes import Frame, Passes, inner
from vwkit_numba.predicting import everywhere

import vwkit
from vwkit.artifact import open_artifact, write_artifact
from vwkit.errors import (
    ArtifactError,
    DataError,
    FewDistinctRows,
    Interrupted,
    ParameterError,
    ShapeError,
)
from vwkit.jobs import Job, use_job
from vwkit.reference import lloyd as reference
from vwkit.reference.distances import distances
from vwkit.stream import Stream
from vwkit.testing.data import KINDS, cut, layouts, mixture, numbers

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


# Any data ---------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    seed=SEEDS,
    rows=st.integers(1, 80),
    dim=st.integers(1, 20),
    share=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    neighbours=st.sampled_from([4, 6, 64]),
    relocate=st.sampled_from([0.0, 0.1, 0.5]),
    iterations=st.sampled_from([1, 2, 5, 25]),
    weighted=st.booleans(),
    finish=st.sampled_from(["graph", "exact"]),
)
def test_no_cluster_is_empty_where_rows_differ(
    seed: int,
    rows: int,
    dim: int,
    share: float,
    kind: str,
    dtype: Any,
    neighbours: int,
    relocate: float,
    iterations: int,
    weighted: bool,
    finish: str,
) -> None:
    k = max(1, round(share * rows))
    data: NDArray[Any] = numbers(seed, rows, dim, "bytes" if dtype == np.uint8 else kind)
    if dtype == np.uint8 and kind in ("grid", "repeats"):
        data %= 3
    data = data.astype(dtype)
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 5, rows) * (rng.random(rows) < 0.8) if weighted else None
    if weights is not None:
        weights[0] = 1
    model, told = fitted_quietly(
        data,
        weights,
        k=k,
        seed=seed,
        neighbours=neighbours,
        relocate=relocate,
        iterations=iterations,
        finish=finish,
    )
    check(model, data, weights)
    distinct = len(np.unique(data if weights is None else data[weights > 0], axis=0))
    assert used(model, weights) == min(k, distinct)
    assert len(told) == (distinct < k)
    if told:
        assert f"{distinct} distinct rows for k = {k}" in told[0]
        assert model.objective[-1] == 0
        assert (model.centers[distinct:] == model.centers[distinct - 1]).all()
    again, _ = fitted_quietly(
        data,
        weights,
        k=k,
        seed=seed,
        neighbours=neighbours,
        relocate=relocate,
        iterations=iterations,
        finish=finish,
    )
    assert everything(again) == everything(model)


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    directions=st.integers(1, 40),
    rows=st.integers(1, 60),
    dim=st.integers(2, 12),
    share=st.floats(0, 1),
    zeros=st.booleans(),
    weighted=st.booleans(),
)
def test_no_cluster_is_empty_where_directions_differ(
    seed: int, directions: int, rows: int, dim: int, share: float, zeros: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    k = max(1, round(share * rows))
    pool = rng.integers(-9, 10, (directions, dim))
    pool[:, 0] = 1  # so different rows point in different directions
    chosen = rng.integers(0, directions, rows)
    # Powers of two, so that the same direction stays the same in floating point.
    data = (pool[chosen] * 2.0 ** rng.integers(-20, 20, (rows, 1))).astype(np.float32)
    if zeros:
        data[rng.random(rows) < 0.2] = 0
    weights = rng.integers(1, 5, rows).astype(np.float64) if weighted else None
    model, told = fitted_quietly(data, weights, k=k, spherical=True, seed=seed)
    check(model, data, weights)
    pointing = np.flatnonzero(data.any(axis=1))
    distinct = len(np.unique(pool[chosen[pointing]], axis=0))
    if distinct >= k:
        assert used(model, weights) == k
        assert not told
    assert len(told) <= 1
    # Lengths count for nothing.
    longer = (data * 2.0 ** rng.integers(-20, 20, (rows, 1))).astype(np.float32)
    assert everything(fitted_quietly(longer, weights, k=k, spherical=True, seed=seed)[0]) == (
        everything(model)
    )


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_equal_rows(value: int, spherical: bool) -> None:
    data = np.full((50, 5), value, np.uint8)
    for rows in (data, data.astype(np.float32) * np.float32(1e30)):
        model, told = fitted_quietly(rows, k=3, spherical=spherical)
        check(model, rows)
        assert len(told) == 1
        assert used(model) == 1
        assert (model.centers == model.centers[0]).all()
        assert model.objective[-1] == pytest.approx(float(spherical and value == 0), abs=1e-6)
        assert np.array_equal(model.predict(rows), model.labels)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 300])
def test_as_many_clusters_as_rows(rows: int) -> None:
    data = np.random.default_rng(rows).permutation(256 * 256)[:rows]
    data = np.stack([data // 256, data % 256], axis=1).astype(np.uint8)
    for params in ({}, {"neighbours": 4}, {"relocate": 0.0}):
        model, told = fitted_quietly(data, k=rows, **params)
        check(model, data)
        assert not told
        assert sorted(model.labels.tolist()) == list(range(rows))
        assert model.objective[-1] == 0
        assert np.array_equal(model.centers[model.labels], data)


def test_one_cluster_is_the_mean() -> None:
    data = numbers(0, 100, 7)
    weights = np.random.default_rng(0).random(100)
    for heavy in (None, weights):
        model, _ = fitted_quietly(data, heavy, k=1)
        mean = np.average(data.astype(np.float64), axis=0, weights=heavy)
        assert model.centers[0] == pytest.approx(mean, rel=1e-6, abs=1e-5)
        check(model, data, heavy)
        assert np.array_equal(model.predict(data), np.zeros(100, np.int32))


def test_one_dimension() -> None:
    data = np.repeat([0, 1, 50, 51, 200], [10, 10, 10, 10, 1]).astype(np.float32)[:, None]
    model, _ = fitted_quietly(data, k=3, relocate=0.0)
    check(model, data)
    assert sorted(model.centers.ravel().tolist()) == [0.5, 50.5, 200]
    assert np.array_equal(model.predict(np.array([[-9.0], [55], [190]])), model.labels[[0, 20, 40]])


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("power", [-100, -30, 30, 120])
def test_huge_and_tiny_numbers(power: int, spherical: bool) -> None:
    """A power of two changes nothing but the exponents."""
    data = mixture(0, 300, 5, 9) / np.float32(512)
    params: dict[str, Any] = {"k": 12, "spherical": spherical}
    expected, _ = fitted_quietly(data, **params)
    scaled = np.ldexp(data, power)
    model, _ = fitted_quietly(scaled, **params)
    assert np.array_equal(model.labels, expected.labels)
    assert np.array_equal(np.isfinite(model.centers), np.isfinite(expected.centers))
    back = model.centers if spherical else np.ldexp(model.centers, -power)
    assert back == pytest.approx(expected.centers, rel=1e-5, abs=1e-6)
    factor = 1.0 if spherical else 2.0 ** (2 * power)
    assert model.objective[-1] == pytest.approx(expected.objective[-1] * factor, rel=1e-5)
    assert np.array_equal(model.predict(scaled), expected.predict(data))


def test_the_smallest_numbers_of_all() -> None:
    data = np.ldexp(np.random.default_rng(0).integers(0, 99, (200, 3)), -149).astype(np.float32)
    for k in (1, 9, 150):
        model, _ = fitted_quietly(data, k=k)
        check(model, data)
        assert used(model) == k
        assert model.objective[-1] > 0


def test_the_largest_numbers_of_all() -> None:
    data = np.array([[3.4e38, -3.4e38], [-3.4e38, 3.4e38], [3.4e38, 3.4e38]] * 5, np.float32)
    for k in (1, 2, 3):
        model, _ = fitted_quietly(data, k=k)
        check(model, data)
        assert used(model) == k
    assert model.objective[-1] == 0


def test_numbers_of_mixed_sizes() -> None:
    """Small columns count for what they are worth: nothing; large ones are not spoilt by them."""
    data = mixture(0, 400, 3, 8)
    wide = np.hstack([data, data * np.float32(1e-30), np.full((400, 2), 1e-38, np.float32)])
    model, _ = fitted_quietly(wide, k=8, relocate=0.0)
    check(model, wide)
    expected, _ = fitted_quietly(data, k=8, relocate=0.0)
    assert np.array_equal(model.labels, expected.labels)


@pytest.mark.parametrize("size", [1e5, 1e6])
def test_one_row_far_away_does_not_spoil_the_others(size: float) -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(50, 8)) * 100
    data = (places[rng.integers(0, 50, 2000)] + rng.normal(size=(2000, 8))).astype(np.float32)
    data[0] = size
    start = np.concatenate([data[:1], places.astype(np.float32)])
    model, _ = fitted_quietly(data, k=51, init=start)
    _, _, objectives = reference.lloyd(data, start, 10)
    assert recomputed(model, data) < 1.05 * objectives[-1]
    assert model.objective[-1] == pytest.approx(recomputed(model, data), rel=1e-2)


def test_rows_near_each_other_and_far_from_zero() -> None:
    data = mixture(0, 400, 4, 8) / np.float32(256) + np.float32(900)
    model, _ = fitted_quietly(data, k=8, relocate=0.5)
    check(model, data)
    assert recomputed(model, data) == pytest.approx(
        reference.objective(data, model.centers, reference.assign(data, model.centers)), rel=1e-4
    )


@pytest.mark.parametrize("spherical", [False, True])
def test_rows_without_weight_influence_nothing(spherical: bool) -> None:
    data = mixture(0, 300, 4, 9)
    noise = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32) * 100
    weights = np.repeat([1.0, 0.0], 300)
    low, high = data.min(axis=0), data.max(axis=0)
    both = np.concatenate([data, np.clip(noise, low, high)])
    start = data[:12].copy()
    params: dict[str, Any] = {"k": 12, "init": start, "spherical": spherical, "relocate": 0.0}
    model, _ = fitted_quietly(both, weights, **params)
    expected, _ = fitted_quietly(data, np.ones(300), **params)
    check(model, both, weights)
    assert np.allclose(model.centers, expected.centers, rtol=1e-6, atol=1e-5)
    assert np.array_equal(model.labels[:300], expected.labels)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("heavy", [1, 3, 8, 9, 30])
def test_fewer_rows_with_weight_than_clusters(heavy: int, spherical: bool) -> None:
    data = mixture(0, 30, 3, 30)
    weights = np.zeros(30)
    weights[:heavy] = 2
    model, told = fitted_quietly(data, weights, k=9, spherical=spherical)
    check(model, data, weights)
    assert used(model, weights) == min(heavy, 9)
    assert len(told) == (heavy < 9)


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 7.5, 1e300])
def test_only_proportions_of_weights_count(factor: float) -> None:
    data = mixture(0, 300, 4, 9)
    weights = np.random.default_rng(0).random(300)
    model, _ = fitted_quietly(data, weights * factor, k=12)
    expected, _ = fitted_quietly(data, weights, k=12)
    assert np.array_equal(model.labels, expected.labels)
    assert np.allclose(model.centers, expected.centers, rtol=1e-6)
    assert model.objective == pytest.approx(expected.objective)


def test_a_weight_of_three_is_worth_three_rows() -> None:
    data = mixture(0, 200, 4, 9)
    times = np.random.default_rng(0).integers(1, 4, 200)
    params: dict[str, Any] = {"k": 12, "init": data[:12].copy(), "relocate": 0.0}
    model, _ = fitted_quietly(data, times, **params)
    expected, _ = fitted_quietly(np.repeat(data, times, axis=0), **params)
    assert np.allclose(model.centers, expected.centers, rtol=1e-6, atol=1e-5)
    assert np.array_equal(np.repeat(model.labels, times), expected.labels)
    assert model.objective == pytest.approx(expected.objective, rel=1e-6)


# The slow reference -----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS,
    k=st.integers(1, 20),
    dim=st.integers(4, 12),  # with fewer, rows lie so dense that rounding decides on some
    iterations=st.sampled_from([1, 2, 3, 6]),
    weighted=st.booleans(),
)
def test_with_all_centers_as_neighbours_it_is_lloyds(
    seed: int, k: int, dim: int, iterations: int, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(150, dim)).astype(np.float32)
    start = data[rng.permutation(150)[:k]]
    weights = rng.integers(1, 4, 150).astype(np.float64) if weighted else None
    centers, labels = start.astype(np.float64), reference.assign(data, start)
    objectives = [reference.objective(data, centers, labels, weights)]
    for _ in range(iterations):
        if (np.bincount(labels, minlength=k) == 0).any():
            return  # empty clusters are filled in another way
        centers = reference.update(data, labels, k, weights)
        labels = reference.assign(data, centers)
        objectives.append(reference.objective(data, centers, labels, weights))
    model, _ = fitted_quietly(
        data, weights, k=k, init=start, relocate=0.0, iterations=iterations, tolerance=0.0
    )
    steps = len(model.objective)
    assert model.objective == pytest.approx(objectives[:steps], rel=1e-5)
    if steps == iterations + 1:  # it has not settled before
        assert np.allclose(model.centers, centers, rtol=1e-4, atol=1e-4)
        assert np.array_equal(model.labels, labels)
    else:
        assert model.changed[-1] == 0


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_settled_centers_are_the_means_of_their_rows(spherical: bool, weighted: bool) -> None:
    data = mixture(1, 1500, 6, 100)
    weights = np.random.default_rng(0).random(1500) if weighted else None
    model, _ = fitted_quietly(
        data, weights, k=100, tolerance=0.0, iterations=200, spherical=spherical
    )
    check(model, data, weights)
    assert model.changed[-1] == 0
    assert model.moved[-1] == 0
    rows = data.astype(np.float64)
    if spherical:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = reference.update(rows, model.labels, 100, weights)
    if spherical:
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.allclose(model.centers, means, rtol=1e-5, atol=1e-5)


class Watched(Job):
    """A job that remembers every checkpoint."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.seen: list[dict[str, Any]] = []

    def checkpoint(self, step: int, arrays: Any) -> None:
        self.seen.append({name: np.array(array) for name, array in arrays.items()})
        assert step == len(self.seen)


@pytest.mark.parametrize("neighbours", [4, 16])
def test_centers_are_the_means_of_the_labels_before(neighbours: int) -> None:
    data = np.random.default_rng(0).normal(size=(3000, 6)).astype(np.float32)
    job = Watched(threads=1)
    with use_job(job):
        model = GraphKMeans(k=150, neighbours=neighbours, relocate=0.0).fit(data)
    assert len(job.seen) > 4
    assert not any(model.moved)
    for before, now in pairwise(job.seen):
        means = reference.update(data, before["labels"], 150)
        assert np.allclose(now["centers"], means, rtol=1e-5, atol=1e-6)
        assert now["changed"][-1] == (before["labels"] != now["labels"]).sum()
        value = reference.objective(data, now["centers"], now["labels"])
        assert now["objective"][-1] == pytest.approx(value, rel=1e-6)
        assert now["objective"][-1] <= before["objective"][-1]
    assert model.objective[: len(job.seen) + 1] == job.seen[-1]["objective"].tolist()


@pytest.mark.parametrize("params", [{}, {"neighbours": 4}, {"fold": True}])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_about_as_good_as_lloyds(seed: int, params: dict[str, Any]) -> None:
    data = blobs(rows=1000, dim=6, clusters=40, seed=seed)
    model, _ = fitted_quietly(data, k=70, seed=seed, **params)
    check(model, data)
    start = reference.kmeans_plus_plus(data, 70, seed)
    _, _, objectives = reference.lloyd(data, start, 12, tolerance=1e-4)
    assert model.objective[-1] < 1.05 * objectives[-1]


def test_it_is_about_as_good_on_the_sphere() -> None:
    data = mixture(0, 1000, 6, 80)
    model, _ = fitted_quietly(data, k=80, spherical=True)
    exact = distances(data, model.centers, "cosine").min(axis=1).mean()
    assert model.objective[-1] == pytest.approx(exact, rel=0.02)
    flat = data / np.linalg.norm(data.astype(np.float64), axis=1, keepdims=True)
    start = reference.kmeans_plus_plus(flat, 80, 0)
    centers, _, _ = reference.lloyd(flat, start, 10)
    assert exact < 1.1 * distances(data, centers, "cosine").min(axis=1).mean()


# The same bytes every way -----------------------------------------------------------------------

PARAMS: dict[str, Any] = {"k": 120, "iterations": 6, "neighbours": 16}


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_threads_chunks_and_maps_give_the_same_bytes(
    tmp_path: Path, dtype: Any, weighted: bool, spherical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blobs(rows=17_000, dim=5, clusters=200).astype(dtype)
    weights = np.random.default_rng(1).exponential(size=len(data)) if weighted else None
    if weights is not None:
        weights[::7] = 0
    np.save(tmp_path / "rows.npy", data)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    before = data.copy()

    def fitted(rows: Any, **budgets: Any) -> list[bytes]:
        with use_job(Job(**budgets)):
            model = GraphKMeans(**PARAMS, spherical=spherical).fit(rows, weights)
            again = [model.predict(rows[:500])] if isinstance(rows, np.ndarray) else []
            assert all(np.array_equal(one, found) for one in again)
        return everything(model)

    with use_job(Job(threads=1)):
        model = GraphKMeans(**PARAMS, spherical=spherical).fit(data, weights)
        found = model.predict(data[:500])
    expected = everything(model)
    assert fitted(data, threads=2) == expected
    assert fitted(mapped, threads=3) == expected
    # Blocks of 16,384 rows, whatever the chunks.
    assert fitted(cut(data, [77, 0, 5000]), threads=1, memory=1) == expected
    assert fitted(cut(data, [16_384], known=False), threads=2, memory=1) == expected
    data.flags.writeable = False
    monkeypatch.setattr(passes, "_MOST_ROWS", 4567)
    monkeypatch.setattr(predicting, "_ROWS", 1000)
    monkeypatch.setattr(fitting, "_MAPPED", 1 << 10)
    assert fitted(data, threads=2) == expected
    assert np.array_equal(data, before)


def test_layouts_give_the_same_bytes() -> None:
    data = blobs(rows=2000, dim=5).astype(np.float32)
    expected = everything(fitted_quietly(data, **PARAMS)[0])
    for name, other in layouts(data):
        if name == "uint8":  # has whole numbers as the coordinates' origin
            continue
        before = other.copy()
        other.flags.writeable = False
        assert everything(fitted_quietly(other, **PARAMS)[0]) == expected, name
        assert np.array_equal(other, before)


def test_the_order_of_the_rows_does_not_matter_to_the_sums() -> None:
    """Where every start is given, and nothing is drawn."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4000, 7)).astype(np.float32)
    weights = rng.exponential(size=4000)
    start = data[:100].copy()
    for heavy in (None, weights):
        params: dict[str, Any] = {"k": 100, "init": start, "relocate": 0.0, "neighbours": 16}
        model, _ = fitted_quietly(data, heavy, **params)
        assert not any(model.moved)  # rows to move to are drawn
        order = rng.permutation(4000)
        other, _ = fitted_quietly(data[order], None if heavy is None else heavy[order], **params)
        assert np.array_equal(other.centers, model.centers)
        assert np.array_equal(other.labels, model.labels[order])
        assert other.objective == model.objective


def test_another_seed_is_another_start() -> None:
    data = np.random.default_rng(0).normal(size=(1000, 4))
    found = [fitted_quietly(data, k=50, seed=seed)[0].centers.tobytes() for seed in range(3)]
    assert len(set(found)) == 3


def test_numpys_own_generator_is_left_alone() -> None:
    def numbers_of() -> bytes:
        state: Any = np.random.get_state()  # noqa: NPY002 - this is the one
        return bytes(state[1].tobytes())

    before = numbers_of()
    fitted_quietly(blobs(rows=300), k=30)
    assert numbers_of() == before


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


@pytest.mark.parametrize(
    ("rows", "dim", "k", "clusters", "params"),
    [
        (3000, 16, 300, 50, {}),
        (3000, 16, 300, 50, {"weighted": True}),
        (600, 8, 60, 12, {"relocate": 0.5}),
        (500, 3, 200, 12, {"spherical": True}),
        (300, 2, 40, 300, {"neighbours": 4, "relocate": 0.0}),
        (300, 2, 150, 9, {"fold": True, "weighted": True, "finish": "exact"}),
    ],
)
def test_an_interrupted_fit_goes_on(
    tmp_path: Path, rows: int, dim: int, k: int, clusters: int, params: dict[str, Any]
) -> None:
    """Behind every checkpoint it goes on to the same bytes."""
    params = dict(params)
    weighted = params.pop("weighted", False)
    for seed in range(2):
        data = blobs(rows, dim, clusters, seed)
        rng = np.random.default_rng(seed)
        weights = rng.exponential(size=rows) if weighted else None

        def model(seed: int = seed) -> GraphKMeans:
            return GraphKMeans(k=k, seed=seed, iterations=12, **params)

        job = Always(tmp_path / f"whole{seed}")
        with use_job(job):
            expected = everything(model().fit(data, weights))
        assert job.steps > 2
        for last in range(1, job.steps + 1):
            folder = tmp_path / f"{seed}-{last}"
            with pytest.raises(Stop), use_job(Always(folder, last)):
                model().fit(data, weights)
            again = Always(folder)
            with use_job(again):
                resumed = model().fit(data, weights)
            assert again.steps == job.steps - last
            assert everything(resumed) == expected, f"after {last} of {job.steps}"


@pytest.mark.parametrize(("rows", "dim", "k"), [(400, 8, 31), (400, 7, 30), (399, 8, 30)])
def test_a_checkpoint_of_another_fit_is_not_used(
    tmp_path: Path, rows: int, dim: int, k: int
) -> None:
    with pytest.raises(Stop), use_job(Always(tmp_path, 2)):
        GraphKMeans(k=30).fit(blobs(rows=400))
    data = blobs(rows=rows, dim=dim)
    with use_job(Always(tmp_path)):
        model = GraphKMeans(k=k).fit(data)
    assert everything(model) == everything(fitted_quietly(data, k=k)[0])


def test_work_that_is_asked_to_stop_stops() -> None:
    job = Job(threads=1)
    job.stop.set()
    with pytest.raises(Interrupted), use_job(job):
        GraphKMeans(k=5).fit(blobs(rows=100))
    model = fitted_quietly(blobs(rows=100), k=5)[0]
    with pytest.raises(Interrupted), use_job(job):
        model.predict(blobs(rows=100))


@pytest.mark.parametrize("finish", ["graph", "exact"])
def test_progress_is_told(finish: str) -> None:
    told: list[tuple[Any, ...]] = []
    data = blobs(rows=500)
    with use_job(Job(threads=1, stage="words", progress=lambda *what: told.append(what))):
        model = GraphKMeans(k=50, iterations=7, finish=finish).fit(data)
    steps = [one for one in told if one[4]]
    assert len(steps) == len(model.moved)
    for number, (stage, done, total, unit, values) in enumerate(steps, start=1):
        assert (stage, done, total, unit) == ("words", 500 * number, 500 * 7, "rows")
        assert values == {"iteration": number, "objective": model.objective[number]} or (
            number == len(steps)
        )
    assert all(done <= total for _, done, total, _, _ in told)


# The shortcuts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbours", [4, 8, 64])
@pytest.mark.parametrize("relocate", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("rows", "dim", "k", "clusters"), [(3000, 16, 300, 50), (5000, 4, 500, 5), (500, 3, 200, 12)]
)
def test_left_out_rows_would_have_stayed(
    rows: int,
    dim: int,
    k: int,
    clusters: int,
    weighted: bool,
    relocate: float,
    neighbours: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nothing has moved around is not compared again: that must not change anything."""
    renew = Fit._renew

    def never_still(fit: Fit, before: NDArray[np.float32]) -> None:
        renew(fit, before)
        fit.still[:] = 0

    for seed in (1, 3, 8):
        data = blobs(rows, dim, clusters, seed)
        weights = np.random.default_rng(seed).exponential(size=rows) if weighted else None
        if weights is not None:
            weights[::9] = 0
        params: dict[str, Any] = {"k": k, "seed": seed, "neighbours": neighbours}
        params |= {"tolerance": 0.0, "iterations": 30, "relocate": relocate}
        monkeypatch.setattr(Fit, "_renew", renew)
        model, _ = fitted_quietly(data, weights, **params)
        monkeypatch.setattr(Fit, "_renew", never_still)
        other, _ = fitted_quietly(data, weights, **params)
        heavy = slice(None) if weights is None else weights > 0
        assert np.array_equal(model.centers, other.centers)
        assert np.array_equal(model.labels[heavy], other.labels[heavy])
        assert model.objective == other.objective


def test_rows_are_left_out_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above would compare the same with the same."""
    left: list[float] = []
    assign = Passes.assign

    def counted(work: Passes, groups: NDArray[np.int32], *args: Any, **kwargs: Any) -> int:
        left.append(float((groups < 0).mean()))
        return assign(work, groups, *args, **kwargs)

    monkeypatch.setattr(Passes, "assign", counted)
    fitted_quietly(blobs(3000, 16, 50), k=300, neighbours=8, tolerance=0.0, relocate=0.0)
    assert max(left) > 0.5


class Caught(Exception):
    """Holds a fit that has just begun."""


def begun(data: Any, monkeypatch: pytest.MonkeyPatch, **params: Any) -> Fit:
    """Return a fit behind its first assignment."""

    def only_begin(fit: Fit) -> None:
        fit._begin()
        raise Caught(fit)

    with monkeypatch.context() as patch, use_job(Job(threads=1)), pytest.raises(Caught) as caught:
        patch.setattr(Fit, "_run", only_begin)
        GraphKMeans(**params).fit(data)
    found: Fit = caught.value.args[0]
    return found


@pytest.mark.parametrize("spherical", [False, True])
def test_the_lists_of_runners_only_improve(
    spherical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With still centers, no row gets a farther one, and many get a nearer one than in its list."""
    data = np.random.default_rng(0).normal(size=(4000, 12)).astype(np.float32)
    fit = begun(data, monkeypatch, k=400, neighbours=16, spherical=spherical)
    metric = "cosine" if spherical else "l2"
    every = distances(data, fit.centers, metric)
    right = [np.mean(every.argmin(axis=1) == fit.labels)]
    own = every[np.arange(4000), fit.labels]
    for _ in range(4):
        fit._assign()
        now = every[np.arange(4000), fit.labels]
        assert (now <= own + 1e-5).all()
        assert fit.objective[-1] <= fit.objective[-2]
        right.append(np.mean(every.argmin(axis=1) == fit.labels))
        own = now
    assert right[1] > right[0] + 0.01
    assert right[2] > right[1]  # others are the runners now


def test_lists_of_runners_make_better_words(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).normal(size=(4000, 12)).astype(np.float32)
    params: dict[str, Any] = {"k": 400, "neighbours": 8, "relocate": 0.0}
    model, _ = fitted_quietly(data, **params)
    assign = Passes.assign

    def without(
        work: Passes, groups: Any, count: int, lists: Any, *args: Any, keep: bool = False, **kw: Any
    ) -> int:
        groups = np.array(args[2]) if keep else groups  # the labels
        return assign(work, groups, count, lists, *args, keep=keep, **kw)

    monkeypatch.setattr(Passes, "assign", without)
    other, _ = fitted_quietly(data, **params)
    assert model.objective[-1] < 0.995 * other.objective[-1]


def test_moving_centers_helps_where_clusters_are_uneven() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(-100, 100, (60, 8))
    data = (places[np.minimum(rng.geometric(0.05, 4000), 60) - 1]).astype(np.float32)
    data += rng.normal(size=data.shape).astype(np.float32)
    start = data[rng.permutation(4000)[:60]]
    errors = [
        fitted_quietly(data, k=60, init=start, relocate=share, seed=seed)[0].objective[-1]
        for share in (0.0, 0.1)
        for seed in (0, 1)
    ]
    assert max(errors[2:]) < 0.5 * min(errors[:2])


def test_centers_move_in_the_first_half_alone_and_no_more_than_asked() -> None:
    data = blobs(rows=2000, clusters=30)
    start = np.repeat(data[:20], 5, axis=0) + np.arange(100)[:, None] * np.float32(1e-3)
    job = Watched(threads=1)
    with use_job(job):
        GraphKMeans(k=100, init=start, iterations=12, tolerance=0.0).fit(data)
    moved = job.seen[-1]["moved"]
    assert sum(moved) > 10
    empties = [np.count_nonzero(np.bincount(one["labels"], minlength=100) == 0) for one in job.seen]
    for step, empty in enumerate(empties[:-1], start=1):
        assert moved[step] <= (max(10, empty) if step < 6 else empty)


def neighbours_found(model: GraphKMeans) -> float:
    """Return the share of the true nearest centers, itself included, that lists hold."""
    wide = model.centers.astype(np.float64)
    apart = distances(wide, wide, "l2")
    width = model._lists.shape[1]
    limit = np.sort(apart, axis=1)[:, width - 1 : width]
    assert (model._lists < model.k).all()
    assert all(len(set(line.tolist())) == width for line in model._lists)
    assert (model._lists == np.arange(model.k)[:, None]).any(axis=1).all()
    return float(np.mean(np.take_along_axis(apart, model._lists, axis=1) <= limit * (1 + 1e-6)))


@pytest.mark.parametrize(("neighbours", "least"), [(8, 0.6), (16, 0.72), (64, 0.9)])
@pytest.mark.parametrize("relocate", [0.0, 0.5])
def test_the_graph_is_kept_up(neighbours: int, least: float, relocate: float) -> None:
    """Lists that are renewed from lists find who comes near, however far centers move.

    Lists that stayed as they were would hold a third of them in the end, whatever their length.
    """
    data = np.random.default_rng(0).normal(size=(8000, 8)).astype(np.float32)
    start = data[:800].copy()
    start[500:] *= np.float32(0.01)  # a heap from which most have to leave
    model, _ = fitted_quietly(
        data, k=800, init=start, neighbours=neighbours, relocate=relocate, iterations=20
    )
    assert neighbours_found(model) > least


def test_gaps_do_not_name_rows_of_clusters_that_were_left_out() -> None:
    """Sums that are kept from pass to pass are those of a new count."""
    data = blobs(rows=2000, dim=5, clusters=40)
    for relocate in (0.0, 0.3):
        job = Watched(threads=1)
        with use_job(job):
            GraphKMeans(k=120, neighbours=8, relocate=relocate, tolerance=0.0).fit(data)
        for state in job.seen:
            value = reference.objective(data, state["centers"], state["labels"])
            assert state["objective"][-1] == pytest.approx(value, rel=1e-6)
            far = state["far_rows"]
            named = far[far >= 0]
            assert np.array_equal(state["labels"][named], np.flatnonzero(far >= 0))


@pytest.mark.parametrize("spherical", [False, True])
def test_the_last_exact_pass_finds_the_nearest_of_all(spherical: bool) -> None:
    data = np.random.default_rng(0).normal(size=(3000, 12)).astype(np.float32)
    params: dict[str, Any] = {"k": 300, "neighbours": 4, "iterations": 5, "spherical": spherical}
    rough, _ = fitted_quietly(data, **params)
    model, _ = fitted_quietly(data, **params, finish="exact")
    assert np.array_equal(model.centers, rough.centers)
    every = distances(data, model.centers, model.metric)
    own = every[np.arange(3000), model.labels]
    assert (own <= every.min(axis=1) + 1e-5).all()
    assert rough.corrected == 0
    assert model.corrected == (model.labels != rough.labels).sum() > 100
    assert model.objective[-1] == pytest.approx(own.mean(), rel=1e-5)
    assert model.objective[-1] < rough.objective[-1]
    assert model.objective[:-1] == rough.objective[:-1]


@pytest.mark.parametrize("spherical", [False, True])
def test_the_last_exact_pass_leaves_no_word_empty(spherical: bool) -> None:
    """Not even where two words lie nearer to each other than float32 tells them apart."""
    for seed in range(12):
        places = np.random.default_rng(seed).uniform(-100, 100, (12, 2))
        places[1], places[3] = places[0] + 0.01, places[2] - 0.01
        data = np.repeat(places, 4, axis=0).astype(np.float32)
        for k in (9, 12, 40):
            model, told = fitted_quietly(data, k=k, finish="exact", seed=seed, spherical=spherical)
            check(model, data)
            if not spherical:
                assert used(model) == min(k, 12)
                assert len(told) == (k > 12)


def test_all_centers_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    data, centers = rng.integers(0, 8, (500, 3)), rng.integers(0, 8, (50, 3))
    frame = Frame(np.zeros(3, np.float32), 1.0, False)
    work = Passes(Stream.from_array(data.astype(np.uint8)), None, frame, Job(threads=1), 0)
    expected = distances(data, centers, "l2").argmin(axis=1)
    before = rng.integers(0, 50, 500).astype(np.int32)
    for size in (4, 7, 50, 1024):
        monkeypatch.setattr(predicting, "_CENTERS", size)
        monkeypatch.setattr(predicting, "_ROWS", 10 * size)
        labels, touched = before.copy(), np.zeros(50, np.bool_)
        ready = inner(centers.astype(np.float32), frame)
        count = everywhere(work, *ready, labels, np.zeros(500, np.float32), touched)
        assert np.array_equal(labels, expected)  # the lowest number on ties
        other = before != expected
        assert count == other.sum()
        assert set(np.flatnonzero(touched)) == {*before[other], *expected[other]}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_folded_rows_are_the_same_rows(dtype: Any, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    pool = (blobs(rows=400, dim=3) * (1.0 if dtype == np.uint8 else 0.37)).astype(dtype)
    which = rng.integers(0, 400, 5000)
    data = pool[which]
    weights = rng.integers(0, 4, 5000).astype(np.float64) if weighted else None
    model, _ = fitted_quietly(data, weights, k=50, fold=True)
    check(model, data, weights)
    first = np.unique(which, return_index=True)[1][np.unique(which, return_inverse=True)[1]]
    assert np.array_equal(model.labels, model.labels[first])
    # As a fit of the distinct rows, in the order in which they come first.
    kept, places, counts = np.unique(
        data, axis=0, return_index=True, return_inverse=False, return_counts=True
    )
    order = np.argsort(places)
    assert len(kept) < 5000
    inverse = np.unique(data, axis=0, return_inverse=True)[1].ravel()
    mass = np.bincount(inverse, weights=weights).astype(np.float64)
    expected, _ = fitted_quietly(data[places[order]], mass[order], k=50)
    assert np.array_equal(model.centers, expected.centers)
    assert model.objective == expected.objective
    assert counts.sum() == 5000
    with use_job(Job(threads=2)):
        chunked = GraphKMeans(k=50, fold=True).fit(cut(data, [77, 1000]), weights)
    assert everything(chunked) == everything(model)


def test_rows_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    data = blobs(rows=300, dim=2, clusters=5)
    data = data[np.random.default_rng(0).integers(0, 300, 2000)]
    for few, k in ((1, 1), (3, 2), (5, 40)):
        monkeypatch.setattr(
            folding, "_hashed", lambda block, few=few: (block[:, 0] % few).astype(np.uint64)
        )
        model, _ = fitted_quietly(data, k=k, fold=True)
        check(model, data)
        assert used(model) == k


def test_folding_what_is_distinct_changes_nothing() -> None:
    data = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    model, _ = fitted_quietly(data, k=50, fold=True)
    assert everything(model) == everything(fitted_quietly(data, k=50)[0])
    few = np.repeat(data[:5], 20, axis=0)
    model, told = fitted_quietly(few, k=9, fold=True)
    check(model, few)
    assert used(model) == 5
    assert len(told) == 1


def test_negative_zero_is_zero() -> None:
    data = np.array([[0.0, 1.0], [-0.0, 1.0], [5.0, 1.0]] * 4, np.float32)
    for fold in (False, True):
        model, told = fitted_quietly(data, k=2, fold=fold)
        assert not told
        assert used(model) == 2
        model, told = fitted_quietly(data, k=3, fold=fold)
        assert used(model) == 2
        assert "2 distinct rows" in told[0]


# Predicting -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words() -> GraphKMeans:
    data = blobs(rows=12_000, dim=16, clusters=300, spread=12)
    return fitted_quietly(data, k=1000, iterations=8)[0]


def test_predict_finds_nearly_all(words: GraphKMeans) -> None:
    asked = blobs(rows=3000, dim=16, clusters=300, spread=12)[1000:]
    every = distances(asked, words.centers, "l2")
    shares = []
    groups = len(words._coarse)
    assert 20 <= groups <= 32  # about the square root
    before = words.probes
    assert before == 16
    try:
        for probes in (1, 4, 16, groups, 10 * groups):
            words.probes = probes  # may be set behind a fit
            own = every[np.arange(len(asked)), words.predict(asked)]
            assert (own >= every.min(axis=1)).all()
            shares.append(np.mean(own <= every.min(axis=1) + 1e-2))
    finally:
        words.probes = before
    assert shares[0] > 0.97  # the nearest group alone, and then along the graph
    assert shares[2] > 0.99
    assert shares == sorted(shares)
    assert shares[3] == shares[4] == 1


def test_a_label_depends_on_its_row_alone(words: GraphKMeans) -> None:
    asked = blobs(rows=1000, dim=16, clusters=300, seed=5)
    expected = words.predict(asked)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(words.predict(asked[order]), expected[order])
    for size in (1, 3, 4, 5, 63, 64, 65):
        assert np.array_equal(words.predict(asked[:size]), expected[:size])
    assert np.array_equal(words.predict(np.repeat(asked, 3, axis=0)), np.repeat(expected, 3))
    assert words.predict(asked[:0]).shape == (0,)
    for threads in (1, 3):
        with use_job(Job(threads=threads)):
            assert np.array_equal(words.predict(asked), expected)
            stream = words.predict(cut(asked, [7, 300]))
            assert np.array_equal(stream.toarray()[:, 0], expected)
    for _, other in layouts(asked.astype(np.float32)):
        assert np.array_equal(words.predict(other), expected)


@pytest.mark.parametrize("spherical", [False, True])
def test_labels_of_a_fit_are_predicted_again(spherical: bool) -> None:
    data = mixture(0, 3000, 8, 150)
    model, _ = fitted_quietly(data, k=200, spherical=spherical)
    assert np.mean(model.predict(data) == model.labels) > model.label_agreement
    if spherical:
        assert np.array_equal(model.predict(data * np.float32(1e15)), model.predict(data))


def run(code: str) -> str:
    """Run Python in a process of its own, which may crash, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_rows_far_from_the_words_find_one() -> None:
    """Nothing fills up a list so well that a row far away takes it for a center."""
    run(
        """
import numpy as np
from vwkit_numba import GraphKMeans

rng = np.random.default_rng(0)
for size in (1e-38, 1e-20, 1, 1e20):
    rows = (rng.exponential(size=(60, 3)) * size).astype(np.float32)
    for k, spherical in ((1, False), (2, False), (3, True), (5, False), (30, False), (30, True)):
        model = GraphKMeans(k=k, iterations=2, spherical=spherical).fit(rows)
        for far in (1e10, 1e19, 1e30, 3e38):
            asked = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], (100, 3)) * far
            labels = model.predict(asked.astype(np.float32))
            assert 0 <= labels.min() and labels.max() < k, (size, k, spherical, far)
for rows in (np.array([[0], [10], [10], [10]]), np.array([[250], [0], [0], [1]], np.uint8)):
    model = GraphKMeans(k=1).fit(rows)
    assert not model.predict(np.array([[-3e38], [3e38], [5.0]], np.float32)).any()
"""
    )


def test_centers_given_far_from_the_rows_do_no_harm() -> None:
    run(
        """
import warnings
import numpy as np
import vwkit
from vwkit_numba import GraphKMeans

warnings.simplefilter("error")
rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
for far in (1e10, 1e18, 1e19, 1e25, 3e38):
    for k in (1, 3, 8):
        for sign in (1, -1):
            start = (sign * far * np.arange(1, k + 1) / k)[:, None].repeat(3, axis=1)
            try:
                model = GraphKMeans(k=k, init=start.astype(np.float32)).fit(rows)
            except vwkit.VwkitError as error:
                assert "init" in str(error)
                continue
            assert len(np.unique(model.labels)) == k
            assert np.abs(model.centers).max() < 10
"""
    )


# Starting from given centers --------------------------------------------------------------------


def test_given_centers_and_a_file_of_them_are_the_same(tmp_path: Path) -> None:
    data = blobs(rows=600)
    start = data[:40].astype(np.float32)
    np.save(tmp_path / "centers.npy", start)
    before = start.copy()
    expected = everything(fitted_quietly(data, k=40, init=start)[0])
    assert np.array_equal(start, before)
    for given_ in (
        tmp_path / "centers.npy",
        str(tmp_path / "centers.npy"),
        data[:40],
        start.astype(np.float64),
        np.asfortranarray(start),
    ):
        assert everything(fitted_quietly(data, k=40, init=given_)[0]) == expected
    # Another seed draws other rows, but starts in the same place.
    firsts = {fitted_quietly(data, k=40, init=start, seed=s)[0].objective[0] for s in range(3)}
    assert len(firsts) == 1


def test_words_go_on_from_words() -> None:
    """A warm start on new data is about settled at once."""
    data, more = blobs(rows=3000, seed=0), blobs(rows=3000, seed=0, spread=6)
    words, _ = fitted_quietly(data, k=100)
    warm, _ = fitted_quietly(more, k=100, init=words.centers, relocate=0.0, iterations=3)
    cold, _ = fitted_quietly(more, k=100, relocate=0.0)
    check(warm, more)
    assert warm.objective[0] < 1.1 * cold.objective[-1]
    assert warm.objective[-1] < 1.05 * cold.objective[-1]
    same, _ = fitted_quietly(data, k=100, init=words.centers, relocate=0.0)
    assert same.objective[0] == pytest.approx(words.objective[-1], rel=1e-2)


def test_equal_given_centers_part() -> None:
    data = mixture(0, 400, 4, 12)
    model, told = fitted_quietly(data, k=12, init=np.zeros((12, 4), np.float32))
    check(model, data)
    assert used(model) == 12
    assert not told


def bad_files(folder: Path) -> Iterator[Path]:
    """Yield paths that hold no centers."""
    yield folder / "missing.npy"
    yield folder
    contents = {
        "empty.npy": b"",
        "text.npy": b"1 2 3",
        "zip.npy": b"PK\x03\x04 and no more",
        "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name
    np.save(folder / "short.npy", np.zeros((5, 8), np.float32))
    whole = (folder / "short.npy").read_bytes()
    (folder / "short.npy").write_bytes(whole[:-8])
    yield folder / "short.npy"
    np.save(folder / "objects.npy", np.full((5, 8), None), allow_pickle=True)
    yield folder / "objects.npy"


def test_files_without_centers_are_refused(tmp_path: Path) -> None:
    for path in bad_files(tmp_path):
        with pytest.raises(DataError, match=r"^init: ") as caught:
            GraphKMeans(k=5, init=path).fit(blobs(rows=50))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (np.zeros((4, 8)), ShapeError),
        (np.zeros((5, 7)), ShapeError),
        (np.zeros(40), ShapeError),
        (np.zeros((1, 5, 8)), ShapeError),
        (np.zeros((0, 8)), ShapeError),
        (np.array(3.0), ShapeError),
        (np.full((5, 8), np.nan), DataError),
        (np.full((5, 8), np.inf), DataError),
        (np.full((5, 8), 1e300), DataError),
        (np.full((5, 8), "x"), DataError),
        (np.full((5, 8), 1j), DataError),
        (np.full((5, 8), np.datetime64(0, "s")), DataError),
    ],
)
def test_wrong_centers_are_refused(
    wrong: NDArray[Any], error: type[Exception], in_file: bool, tmp_path: Path
) -> None:
    init: Any = wrong
    if in_file:
        init = tmp_path / "centers.npy"
        np.save(init, wrong)
    with pytest.raises(error, match=r"^init: ") as caught:
        GraphKMeans(k=5, init=init).fit(blobs(rows=50))
    if error is ShapeError:
        assert "(5, 8)" in str(caught.value)
        assert str(wrong.shape) in str(caught.value)


# Saving -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fitted_quietly(blobs(rows=900), k=100, iterations=3)[0].save(tmp_path / "words")
    return tmp_path / "words"


def test_saved_words_go_on_as_before(saved: Path) -> None:
    fresh, _ = fitted_quietly(blobs(rows=900), k=100, iterations=3)
    asked = blobs(rows=500, seed=1)
    loaded = vwkit.load(saved)
    assert isinstance(loaded, GraphKMeans)
    assert everything(loaded) == everything(fresh)
    assert loaded.corrected == fresh.corrected
    assert np.array_equal(loaded.predict(asked), fresh.predict(asked))
    loaded.probes = fresh.probes = 1
    assert np.array_equal(loaded.predict(asked), fresh.predict(asked))
    loaded.save(saved)  # what was made for predicting is not saved
    assert not any("ready" in name for name in open_artifact(saved).manifest["arrays"])
    again = vwkit.load(saved)
    assert again.probes == 1
    assert everything(again) == everything(fresh)


def forged(folder: Path, name: str, array: Any) -> Path:
    """Write the artifact again with one array changed, all checksums right."""
    artifact = open_artifact(folder)
    arrays = {key: np.array(value) for key, value in artifact.arrays().items()}
    assert name in arrays
    arrays[name] = np.asarray(array)
    manifest = json.loads(json.dumps(artifact.manifest))
    for key in ("arrays", "files", "sha256"):
        manifest.pop(key, None)
    target = folder.with_name("forged")
    shutil.rmtree(target, ignore_errors=True)
    with write_artifact(target, manifest) as draft:
        for key, value in arrays.items():
            draft.array(key, value)
    return target


def put(array: NDArray[Any], value: Any) -> NDArray[Any]:
    changed = array.copy()
    changed[(-1,) * changed.ndim] = value
    return changed


DAMAGE: list[tuple[str, Callable[[NDArray[Any]], Any]]] = [
    ("_lists", lambda a: put(a, 101)),
    ("_lists", lambda a: put(a, 1 << 30)),
    ("_lists", lambda a: put(a, -1)),
    ("_lists", lambda a: a[:-1]),
    ("_lists", lambda a: a[:, :-1]),  # no longer a multiple of four
    ("_lists", lambda a: a[:, :0]),
    ("_lists", lambda a: a.astype(np.int64)),
    ("_lists", lambda a: a.ravel()),
    ("_members", lambda a: put(a, 100)),
    ("_members", lambda a: put(a, 1 << 30)),
    ("_members", lambda a: put(a, -1)),
    ("_members", lambda a: a[:-1]),
    ("_members", lambda a: a.astype(np.float64)),
    ("_starts", lambda a: put(a, 1 << 40)),
    ("_starts", lambda a: put(a, 99)),
    ("_starts", lambda a: a[::-1].copy()),
    ("_starts", lambda a: a[:-1]),
    ("_starts", lambda a: a - 1),
    ("_coarse", lambda a: a[:-1]),
    ("_coarse", lambda a: a[:, :-1]),
    ("_coarse", lambda a: np.zeros((len(a), 4096), np.float32)),
    ("_coarse", lambda a: put(a, np.nan)),
    ("_shift", lambda a: a[:-1]),
    ("_shift", lambda a: np.zeros(4096, np.float32)),
    ("_shift", lambda a: put(a, np.inf)),
    ("_scale", lambda a: np.array(np.nan)),
    ("_scale", lambda a: np.array([1.0, 2.0])),
    ("centers", lambda a: a[:-1]),
    ("centers", lambda a: a[:, :-1]),
    ("centers", lambda a: put(a, np.nan)),
    ("centers", lambda a: a.astype(np.int32)),
    ("labels", lambda a: put(a, 100)),
    ("labels", lambda a: put(a, -1)),
    ("labels", lambda a: a[None]),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_damaged_words_are_refused(
    saved: Path, name: str, damage: Callable[[NDArray[Any]], Any]
) -> None:
    """Kernels read where these numbers say: a wrong one must not get that far."""
    array = np.array(open_artifact(saved).arrays()[name])
    vwkit.load(forged(saved, name, array))
    with pytest.raises(ArtifactError):
        vwkit.load(forged(saved, name, damage(array)))


# Errors -----------------------------------------------------------------------------------------


def test_more_clusters_than_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"k = 6 .* 6 rows; got 5"):
        GraphKMeans(k=6).fit(np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.array([[1.0, 2.0], [1.0, np.nan], [3.0, 4.0]]), r"row 1, column 1 is nan"),
        (
            np.array([[1.0, 2.0], [1.0, 1.0], [-np.inf, 4.0]], np.float32),
            r"row 2, column 0 is -inf",
        ),
        (np.array([["a", "b"]] * 4), r"numbers are needed"),
        (np.array([[1j, 2j]] * 4), r"numbers are needed"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((0, 4)), r"0 rows"),
        (np.zeros((4, 0)), r"at least one dimension"),
        (np.full((4, 2), 1e300), r"beyond float32"),
        (iter([np.zeros((4, 2))]), r"generator"),
    ],
)
def test_bad_data_are_refused(data: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        GraphKMeans(k=2).fit(data)


def test_bad_rows_of_a_stream_are_refused() -> None:
    data = np.zeros((100, 3), np.float32)
    data[70, 2] = np.nan
    with pytest.raises(DataError, match="row 70, column 2 is nan"):
        GraphKMeans(k=2).fit(cut(data, [30]))


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.ones(3), r"shape \(4,\), got \(3,\)"),
        (np.ones((4, 1)), r"shape \(4,\)"),
        ([1, 2, -1, 4], r"row 2 is -1"),
        ([1, np.nan, 1, 1], r"row 1 is nan"),
        ([1, 1, 1, np.inf], r"row 3 is inf"),
        (np.zeros(4), r"all are 0"),
        (["a"] * 4, r"cannot be read as numbers"),
    ],
)
def test_bad_weights_are_refused(weights: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        GraphKMeans(k=2).fit(np.arange(8.0).reshape(4, 2), weights)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", 2.5),
        ("iterations", 0),
        ("tolerance", -1e-9),
        ("tolerance", float("nan")),
        ("neighbours", 3),
        ("relocate", -0.1),
        ("relocate", 0.6),
        ("probes", 0),
        ("finish", "well"),
        ("neighbors", 8),
    ],
)
def test_bad_parameters_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=name):
        vwkit.create("clusterer", "graph-kmeans", **{"k": 5, name: value})


def test_a_second_fit_replaces_the_first() -> None:
    model, _ = fitted_quietly(blobs(rows=600), k=40)
    model.predict(blobs(rows=10))
    data = blobs(rows=500, dim=3, seed=4).astype(np.float32)
    with use_job(Job(threads=1)):
        model.fit(data)
    assert everything(model) == everything(fitted_quietly(data, k=40)[0])
    asked = blobs(rows=100, dim=3, seed=5).astype(np.float32)
    assert np.array_equal(model.predict(asked), fitted_quietly(data, k=40)[0].predict(asked))


def test_vocabularies_take_them() -> None:
    data = blobs(rows=500)
    vocabulary: Any = vwkit.create(
        "quantizer", "vocabulary", clusterer={"use": "graph-kmeans", "k": 30}
    )
    vocabulary.fit(data)
    assert np.array_equal(vocabulary.encode(data)[:, 0], vocabulary.clusterer.predict(data))
    assert graph_kmeans.GraphKMeans is type(vocabulary.clusterer)
