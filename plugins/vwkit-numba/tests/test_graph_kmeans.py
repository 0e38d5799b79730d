"""Graph k-means on any data, and against the slow reference."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from graph_fits import SEEDS, Watched, blobs, check, everything, fitted_quietly, recomputed, used
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vwkit_numba import GraphKMeans

from vwkit.jobs import use_job
from vwkit.reference import lloyd as reference
from vwkit.reference.distances import distances
from vwkit.testing.data import KINDS, mixture, numbers

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
