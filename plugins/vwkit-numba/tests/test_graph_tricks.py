"""What each of graph k-means' shortcuts must not change, and what it is good for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_fits import Watched, blobs, check, everything, fitted_quietly, used
from numpy.typing import NDArray
from vwkit_numba import GraphKMeans, folding, predicting
from vwkit_numba.fitting import Fit
from vwkit_numba.lists import Moving
from vwkit_numba.passes import Frame, Passes, inner
from vwkit_numba.predicting import everywhere
from vwkit_numba.totals import Totals

from vwkit.jobs import Job, use_job
from vwkit.reference import lloyd as reference
from vwkit.reference.distances import distances
from vwkit.stream import Stream
from vwkit.testing.data import cut


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
    groups_of = Moving.__call__

    def counted(moving: Moving, *state: NDArray[np.int32]) -> NDArray[np.int32]:
        groups = groups_of(moving, *state)
        left.append(float((groups < 0).mean()))
        return groups

    monkeypatch.setattr(Moving, "__call__", counted)
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


@pytest.mark.parametrize("seed", range(4))
def test_what_a_center_is_worth_is_of_the_last_pass(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The center beside it may have gone: then a cluster that is as before is worth more."""
    pairs_of, seen = Fit._pairs, []

    def watched(fit: Fit, relocate: bool) -> NDArray[np.int64]:
        if relocate:
            fresh = Totals.zeros(fit.k, fit.passes.dim)
            every = np.ones(fit.k, np.bool_)
            fit.passes.accumulate(fit.labels, fit.ready[0], fit.gaps, fresh, every, 0)
            seen.append(np.array_equal(fresh.totals, fit.totals.totals))
        return pairs_of(fit, relocate)

    monkeypatch.setattr(Fit, "_pairs", watched)
    # Most clusters stay as they are from the first pass on.
    places = np.random.default_rng(seed).integers(0, 256, (40, 4)).astype(np.uint8)
    fitted_quietly(np.repeat(places, 15, axis=0), k=34, seed=seed, tolerance=0.0, iterations=20)
    assert len(seen) == 10
    assert all(seen)


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
