"""Passes over rows, which move, assign and add them up, against slow, plain NumPy.

Where vectors are whole numbers, every product is exact in float32, so that answers are compared to
the last bit, ties included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import DIMS, FAR, SEEDS, moved, over, plain, quick, some_lists, whole
from numpy.typing import NDArray
from vwkit_numba import passes
from vwkit_numba.passes import Frame, Passes, Totals, inner, padded_lists

from vwkit.jobs import Job
from vwkit.stream import Stream

# Coordinates ------------------------------------------------------------------------------------


@quick(30)
@given(SEEDS, DIMS, st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]))
def test_inner_coordinates(seed: int, dim: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    centers = (rng.uniform(-1, 1, (7, dim)) * size).astype(np.float32)
    exponent = int(np.ceil(np.log2(size))) + 1
    frame = Frame((rng.uniform(-1, 1, dim) * size).astype(np.float32), 2.0**-exponent, False)
    found, half = inner(centers, frame)
    assert found.shape == (8, -(-dim // 16) * 16)
    assert found.shape[1] == frame.wide
    assert np.abs(found[:-1, :dim] - moved(centers, frame)).max() < 1e-7
    assert not found[:, dim:].any()
    assert not found[-1].any()
    norms = (found[:-1].astype(np.float64) ** 2).sum(axis=1) / 2
    assert half[:-1] == pytest.approx(norms, rel=1e-7)
    assert half[-1] == FAR


def test_a_center_without_direction_is_nearest_to_nobody() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]], np.float32)
    frame = Frame(np.zeros(2, np.float32), 1.0, True)
    centers, half = inner(np.array([[0.0, 0.0], [0.0, 1.0]], np.float32), frame)
    labels, gaps = np.zeros(3, np.int32), np.zeros(3, np.float32)
    work = over(rows, frame)
    work.assign(labels.copy(), 1, padded_lists([np.arange(2)], 2), centers, half, labels, gaps)
    assert (labels == 1).all()
    assert half[0] < half[-1]  # but before what fills lists up
    work.assign(labels * 0, 1, padded_lists([np.arange(1)], 2), centers, half, labels, gaps)
    assert (labels == 0).all()


def test_lists_are_filled_up_to_fours() -> None:
    lists = padded_lists([np.arange(5), np.arange(0), np.array([7, 8, 9, 10])], 11)
    assert lists.starts.tolist() == [0, 8, 8, 12]
    assert lists.numbers.tolist() == [0, 1, 2, 3, 4, 11, 11, 11, 7, 8, 9, 10]


# Assigning --------------------------------------------------------------------------------------


def nearest_of(
    values: NDArray[np.float64], listed: NDArray[Any], own: int | None
) -> tuple[int, float]:
    """Return the nearest, the lowest number on ties, and the gap to the second nearest."""
    able = sorted({*listed.tolist()} | (set() if own is None else {own}))
    ranked = sorted((values[c], c) for c in able)
    second = ranked[1][0] if len(ranked) > 1 else FAR
    return ranked[0][1], 2 * (min(second, FAR) - ranked[0][0])


@quick(60)
@given(
    seed=SEEDS,
    rows=st.integers(1, 70),
    dim=DIMS,
    k=st.integers(1, 30),
    groups=st.integers(1, 5),
    dtype=st.sampled_from([np.uint8, np.float32]),
    keep=st.booleans(),
)
def test_assign_finds_what_a_slow_search_finds(
    seed: int, rows: int, dim: int, k: int, groups: int, dtype: Any, keep: bool
) -> None:
    rng = np.random.default_rng(seed)
    data, centers = whole(rng, rows, dim, dtype), whole(rng, k, dim, np.float32)
    frame = Frame(rng.integers(0, 3, dim).astype(np.float32), 2.0**-8, False)
    parts, lists = some_lists(rng, k, groups)
    group_of = rng.integers(-1, groups, rows).astype(np.int32)
    before = rng.integers(0, k, rows).astype(np.int32)
    labels, runners = before.copy(), np.full(rows, -5, np.int32)
    gaps, touched = np.full(rows, np.nan, np.float32), np.zeros(k, np.bool_)
    inside, half = inner(centers, frame)
    count = over(data, frame).assign(
        group_of, groups, lists, inside, half, labels, gaps, runners, keep=keep, touched=touched
    )
    products = moved(data, frame) @ moved(centers, frame).T
    values = (moved(centers, frame) ** 2).sum(axis=1) / 2 - products
    expected = before.copy()
    for i in range(rows):
        if group_of[i] < 0:
            assert np.isnan(gaps[i])
            assert runners[i] == -5
            continue
        listed = parts[group_of[i]]
        expected[i], gap = nearest_of(values[i], listed, int(before[i]) if keep else None)
        if keep:
            assert runners[i] == -5
        else:
            place = listed.tolist().index(expected[i]) % 4
            # The best but one of four interleaved parts of the list.
            others = [listed[j::4] for j in range(4) if j != place and len(listed[j::4])]
            best = min((values[i, other].min() for other in others), default=None)
            assert runners[i] in (np.concatenate(others) if others else [expected[i]])
            assert best is None or values[i, runners[i]] == best
        assert gaps[i] == np.float32(gap)
    assert np.array_equal(labels, expected)
    other = before != expected
    assert count == other.sum()
    assert set(np.flatnonzero(touched)) == {*before[other].tolist(), *expected[other].tolist()}


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 64, 128])
def test_assign_of_real_numbers(dim: int, spherical: bool) -> None:
    rng = np.random.default_rng(dim)
    data = rng.normal(size=(500, dim)).astype(np.float32)
    data[::50] = 0
    centers = rng.normal(size=(40, dim)).astype(np.float32)
    frame = Frame(np.zeros(dim, np.float32), 1.0 if spherical else 0.125, spherical)
    labels, gaps = np.zeros(500, np.int32), np.zeros(500, np.float32)
    placed = frame.placed(centers)
    assert spherical == bool(np.allclose(np.linalg.norm(placed, axis=1), 1))
    everyone = padded_lists([np.arange(40)], 40)
    over(data, frame).assign(
        np.zeros(500, np.int32), 1, everyone, *inner(placed, frame), labels, gaps
    )
    distances = ((moved(data, frame)[:, None] - moved(centers, frame)) ** 2).sum(axis=2)
    ranked = np.sort(distances, axis=1)
    own = distances[np.arange(500), labels]
    assert (own <= ranked[:, 0] + 1e-6 * dim).all()
    assert gaps == pytest.approx(ranked[:, 1] - ranked[:, 0], abs=1e-6 * dim)


def test_groups_may_be_the_labels_themselves() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (5000, 5)).astype(np.uint8)
    frame, k = Frame(np.full(5, 128, np.float32), 2.0**-8, False), 30
    centers, half = inner(data[:k].astype(np.float32), frame)
    _, lists = some_lists(rng, k, k)
    start = rng.integers(0, k, 5000).astype(np.int32)
    labels, other = start.copy(), start.copy()
    gaps = np.empty(5000, np.float32)
    work = over(data, frame)
    assert work.assign(labels, k, lists, centers, half, labels, gaps) == work.assign(
        start, k, lists, centers, half, other, gaps
    )
    assert np.array_equal(labels, other)
    runners, expected = start.copy(), labels.copy()
    work.assign(start, k, lists, centers, half, expected, gaps, keep=True)
    work.assign(runners, k, lists, centers, half, labels, gaps, runners, keep=True)
    assert np.array_equal(labels, expected)
    assert np.array_equal(runners, start)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_threads_blocks_and_streams_do_not_matter(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 256, (40_000, 3)) + (0.0 if dtype == np.uint8 else 0.25)).astype(dtype)
    weights = rng.random(len(data))
    frame, k = Frame(np.full(3, 128, np.float32), 2.0**-8, False), 50
    centers, half = inner(data[:k].astype(np.float32), frame)
    _, lists = some_lists(rng, k, k)
    groups = rng.integers(-1, k, len(data)).astype(np.int32)

    def answers(stream: Stream, threads: int) -> list[bytes]:
        work = Passes(stream, weights, frame, Job(threads=threads, memory=1), 3)
        labels, runners = np.zeros(len(data), np.int32), np.zeros(len(data), np.int32)
        gaps, totals = np.zeros(len(data), np.float32), Totals.zeros(k, 3)
        every = np.ones(k, np.bool_)
        try:
            changed = work.assign(groups, k, lists, centers, half, labels, gaps, runners)
            work.accumulate(labels, centers, gaps, totals, every, 5)
            means = work.means(totals, np.zeros((k, 3), np.float32))
            around = work.over(data[:1000], 0).nearest_groups(centers[:48], half[:48], 7)
        finally:
            work.close()
        kept = [totals.sums, totals.totals, totals.far_keys, totals.far_rows, means, around]
        return [
            np.ascontiguousarray(one).tobytes() for one in (changed, labels, runners, gaps, *kept)
        ]

    expected = answers(Stream.from_array(data), 1)
    assert answers(Stream.from_array(data), 3) == expected
    cut = Stream(lambda: np.array_split(data, [1, 1, 20_000]), dim=3, dtype=dtype, rows=len(data))
    assert answers(cut, 1) == answers(cut, 2) == expected
    monkeypatch.setattr(passes, "most_rows", lambda memory: 1111)
    assert answers(Stream.from_array(data), 2) == expected


# Adding up --------------------------------------------------------------------------------------


@quick(60)
@given(
    seed=SEEDS,
    rows=st.integers(1, 70),
    dim=DIMS,
    k=st.integers(1, 12),
    dtype=st.sampled_from([np.uint8, np.float32]),
    weighted=st.booleans(),
)
def test_sums_are_exact(seed: int, rows: int, dim: int, k: int, dtype: Any, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    data: NDArray[Any] = whole(rng, rows, dim, dtype)
    if dtype == np.float32:
        data = (data * rng.random((rows, dim))).astype(np.float32)
    weights = rng.random(rows) * (rng.random(rows) > 0.3) if weighted else None
    if weights is not None:
        weights[0] = 0.5
    heavy = np.ones(rows) if weights is None else weights
    frame = Frame(rng.integers(0, 256, dim).astype(np.float32), 2.0**-8, False)
    work = over(data, frame, weights)
    labels = rng.integers(0, k, rows).astype(np.int32)
    centers, _ = inner(whole(rng, k, dim, np.float32), frame)
    gaps = rng.random(rows).astype(np.float32)
    active = rng.random(k) < 0.7
    totals = Totals.zeros(k, dim)
    totals.sums += 77
    totals.totals += 77
    totals.far_rows += 77
    work.accumulate(labels, centers, gaps, totals, active, 1)

    # What is added is the row in float32, times its weight, cut to whole units.
    units = work.scales
    inside = (data.astype(np.float32) - frame.shift) * np.float32(frame.scale)
    apart = ((inside - centers[labels, :dim].astype(np.float64)) ** 2).sum(axis=1)
    for c in range(k):
        if not active[c]:
            assert (totals.sums[c] == 77).all()
            assert (totals.totals[c] == 77).all()
            assert totals.far_rows[c] == 76
            continue
        mine = np.flatnonzero(labels == c)
        parts = np.trunc(inside[mine].astype(np.float64) * (heavy[mine] * units[0])[:, None])
        assert np.array_equal(totals.sums[c], parts.astype(np.int64).sum(axis=0))
        assert totals.totals[c, 0] == np.rint(heavy[mine] * units[1]).astype(np.int64).sum()
        assert totals.totals[c, 1] == len(mine)
        distance = (heavy[mine] * apart[mine]).sum()
        assert totals.totals[c, 2] / units[2] == pytest.approx(distance, rel=1e-5)
        margin = (heavy[mine] * gaps[mine]).sum()
        assert totals.totals[c, 3] / units[2] == pytest.approx(margin, rel=1e-6)
        able = mine[(heavy[mine] > 0) & (apart[mine] > 0)]
        assert totals.far_rows[c] in (able if len(able) else [-1])
        assert (totals.far_keys[c] > 0) == bool(len(able))

    # In another order nothing changes but the rows that were drawn.
    order = rng.permutation(rows)
    again = Totals.zeros(k, dim)
    over(data[order], frame, None if weights is None else weights[order]).accumulate(
        labels[order], centers, gaps[order], again, np.ones(k, np.bool_), 1
    )
    assert np.array_equal(again.sums[active], totals.sums[active])
    assert np.array_equal(again.totals[active], totals.totals[active])

    means = work.means(again, np.full((k, dim), 5, np.float32))
    for c in range(k):
        mine = np.flatnonzero((labels == c) & (heavy > 0))
        if len(mine):
            mean = np.average(data[mine].astype(np.float64), axis=0, weights=heavy[mine])
            assert means[c] == pytest.approx(mean, rel=1e-6, abs=3e-5)
        else:
            assert (means[c] == 5).all()


def test_the_most_rows_and_the_largest_numbers_do_not_overflow() -> None:
    """All rows at one corner of the box, all of the greatest weight, the center at the other."""
    rows = np.ones((1 << 12, 3), np.float32)
    for weights in (None, np.ones(1 << 12)):
        work = over(rows, plain(3), weights)
        totals = Totals.zeros(1, 3)
        centers, _ = inner(-np.ones((1, 3), np.float32), plain(3))
        gaps = np.full(1 << 12, 3e38, np.float32)
        labels, every = np.zeros(1 << 12, np.int32), np.ones(1, np.bool_)
        work.accumulate(labels, centers, gaps, totals, every, 0)
        assert np.array_equal(work.means(totals, centers[:1, :3]), [[1, 1, 1]])
        assert work.objective(totals) == 12
        assert totals.totals[0, 3] > 0


def test_means_on_the_sphere() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 5)).astype(np.float32)
    rows[7] = 0
    frame = Frame(np.zeros(5, np.float32), 1.0, True)
    labels = rng.integers(0, 4, 200).astype(np.int32)
    rows[labels == 2] *= np.float32(1e30)  # lengths count for nothing
    rows[np.flatnonzero(labels == 3)] = 0
    rows[np.flatnonzero(labels == 3)[:2]] = [[1, 2, 3, 4, 5], [-1, -2, -3, -4, -5]]
    centers = frame.placed(rng.normal(size=(4, 5)).astype(np.float32))
    totals = Totals.zeros(4, 5)
    work = over(rows, frame)
    ready, _ = inner(centers, frame)
    work.accumulate(labels, ready, np.zeros(200, np.float32), totals, np.ones(4, np.bool_), 0)
    means = work.means(totals, centers)
    inside = moved(rows, frame)
    for c in range(3):
        mean = inside[labels == c].mean(axis=0)
        assert means[c] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert np.array_equal(means[3], centers[3])  # directions that cancel
    cosines = 1 - (inside * centers[labels]).sum(axis=1)
    assert work.objective(totals) == pytest.approx(cosines.mean(), rel=1e-5)
    assert totals.far_rows[0] != 7  # it lies in no direction


def test_far_rows_are_drawn_in_proportion() -> None:
    """Far rows more often, heavy rows more often, and another draw each time."""
    rows = np.array([[0], [1], [2], [4]] * 3, np.float32)
    weights = np.repeat([0.5, 0.05, 0.0], 4)
    work = over(rows, plain(1), weights)
    ready, _ = inner(np.zeros((1, 1), np.float32), plain(1))
    drawn = np.zeros(12, np.int64)
    for draw in range(400):
        totals = Totals.zeros(1, 1)
        gaps, every = np.zeros(12, np.float32), np.ones(1, np.bool_)
        work.accumulate(np.zeros(12, np.int32), ready, gaps, totals, every, draw)
        drawn[totals.far_rows[0]] += 1
    assert drawn[[0, 4, 8, 9, 10, 11]].sum() == 0
    assert drawn[3] > drawn[2] > drawn[1] > 0
    assert drawn[3] > drawn[7] > 0
