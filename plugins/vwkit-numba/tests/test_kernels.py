"""The compiled kernels of graph k-means against slow, plain NumPy.

Where vectors are whole numbers, every product is exact in float32, so that answers are compared to
the last bit, ties included.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vwkit_numba import graph, graph_kernels, kernels, lanes, passes
from vwkit_numba.coarse import group_centers
from vwkit_numba.graph import Graph, build, renew
from vwkit_numba.passes import Frame, Lists, Passes, Totals, inner, padded_lists
from vwkit_numba.start import shares

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


# Products ---------------------------------------------------------------------------------------


@numba.njit
def call_dots_4(x: Any, centers: Any, row: int, out: Any) -> None:
    lanes.dots_4(x, x.shape[1] // 16, centers, row, out)


@numba.njit
def call_dots_16(centers: Any, own: int, listed: Any, begin: int, out: Any) -> None:
    lanes.dots_16(centers, own, centers.shape[1] // 16, listed, begin, out)


@numba.njit
def call_product(x: Any, own: int, centers: Any, row: int) -> Any:
    return lanes.product(x, own, x.shape[1] // 16, centers, row)


@numba.njit
def call_squared_distance(x: Any, centers: Any, row: int) -> Any:
    return lanes.squared_distance(x, x.shape[0] // 16, centers, row)


@pytest.mark.parametrize("blocks", [1, 2, 5, 8])
def test_products_are_right_and_the_same_in_every_place(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    wide = 16 * blocks
    x = rng.normal(size=(4, wide)).astype(np.float32)
    centers = rng.normal(size=(40, wide)).astype(np.float32)
    centers[:4] = x
    exact = centers.astype(np.float64) @ x.T.astype(np.float64)
    products = np.empty((40, 4), np.float32)
    for row in range(0, 40, 4):
        out = np.empty(16, np.float32)
        call_dots_4(x, centers, row, out)
        products[row : row + 4] = out.reshape(4, 4).T
    assert np.abs(products - exact).max() < 1e-6 * wide
    # The same two vectors give the same bits wherever they stand, and in the other kernel.
    turned = np.roll(centers, 1, axis=0)
    for row in range(0, 40, 4):
        out = np.empty(16, np.float32)
        call_dots_4(x[::-1].copy(), turned, row, out)
        assert np.array_equal(out.reshape(4, 4).T[:, ::-1], np.roll(products, 1, 0)[row : row + 4])
    listed = rng.permutation(40).astype(np.int32)
    out = np.full(40, np.nan, np.float32)
    call_dots_16(centers, 2, listed, 16, out)
    assert np.array_equal(out[16:32], products[listed[16:32], 2])
    assert np.isnan(np.delete(out, range(16, 32))).all()
    for row in range(8):
        distance = ((x[1].astype(np.float64) - centers[row]) ** 2).sum()
        assert call_squared_distance(x[1], centers, row) == pytest.approx(distance, rel=1e-6)
    assert call_squared_distance(x[1], centers, 1) == 0
    alone = [[call_product(x, p, centers, row) for p in range(4)] for row in range(40)]
    assert np.array_equal(np.array(alone, np.float32), products)


def test_distances_do_not_cancel() -> None:
    x = np.full(16, 1000.0, np.float32)
    near = (x + np.float32(1 / 1024))[None]
    assert call_squared_distance(x, near, 0) == np.float32(16 / 1024**2)


# Sorting, cutting, choosing ---------------------------------------------------------------------


@quick(30)
@given(SEEDS, st.integers(0, 200), st.integers(1, 12))
def test_rows_are_grouped_in_order(seed: int, rows: int, k: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, k, rows).astype(np.int32)
    order, starts = np.full(rows, -7, np.int32), np.empty(k + 1, np.int64)
    kernels.group_rows(labels, k, order, starts)
    assert starts[0] == 0
    for c in range(k):
        assert np.array_equal(order[starts[c] : starts[c + 1]], np.flatnonzero(labels == c))
    assert (order[starts[-1] :] == -7).all()


@quick(30)
@given(st.lists(st.sampled_from([0, 1, 3, 2047, 2048, 2049, 5000]), min_size=1, max_size=6))
def test_pieces_are_whole_groups_or_parts_of_large_ones(sizes: list[int]) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    pieces = kernels.segments(starts)
    expected = [
        (first, min(first + 2048, starts[c + 1]), c)
        for c in range(len(sizes))
        for first in range(starts[c], starts[c + 1], 2048)
    ]
    assert pieces.shape == (len(expected), 3)
    assert [tuple(piece) for piece in pieces] == expected


@quick(60)
@given(SEEDS, st.integers(2, 60), st.sampled_from(["some", "ties", "wide", "near"]))
def test_a_limit_parts_the_smallest_from_the_others(seed: int, count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    made = {
        "some": rng.normal(size=count),
        "ties": rng.integers(0, 4, count),
        "wide": rng.choice([-1, 1], count) * 10.0 ** rng.integers(-45, 37, count),
        "near": 1 + rng.integers(0, 3, count) * 2.0**-23,  # neighbouring numbers of float32
    }
    values = made[kind].astype(np.float32)
    room = int(rng.integers(1, count + 1))
    limit = graph_kernels._limit(np.append(values, np.float32(-1e30)), count, room)
    below = int((values < limit).sum())
    assert graph_kernels._below(np.append(values, np.float32(-1e30)), count, limit) == below
    assert below <= room <= below + int((values == limit).sum())


@quick(30)
@given(SEEDS, st.integers(0, 40), st.integers(1, 20), st.booleans())
def test_the_smallest_are_kept(seed: int, count: int, room: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(0, 4, count) if ties else rng.normal(size=count)).astype(np.float32)
    numbers = rng.permutation(1000)[:count].astype(np.int32)
    heap, kept = np.full(room, np.nan, np.float32), np.full(room, -1, np.int32)
    held = graph_kernels._keep_smallest(values, numbers, count, heap, kept)
    assert held == min(count, room)
    assert np.array_equal(np.sort(heap[:held]), np.sort(values)[:held])
    value_of = dict(zip(numbers.tolist(), values.tolist(), strict=True))
    assert [value_of[number] for number in kept[:held].tolist()] == heap[:held].tolist()
    assert len(set(kept[:held].tolist())) == held


@quick(30)
@given(SEEDS, st.integers(1, 20), st.integers(0, 40))
def test_centers_are_shared_out_in_proportion(seed: int, groups: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    able, k = rng.integers(0, 8, groups), groups + more
    mass = np.where(able > 0, rng.exponential(size=groups), 0)
    mass[rng.random(groups) < 0.2] = 0
    given_ = shares(mass, able, k)
    assert given_.sum() == min(k, able.sum())
    assert (given_ <= able).all()
    assert ((given_ > 0) == (able > 0)).all()  # no group of rows without a center
    even = shares(np.ones(groups), np.full(groups, 1000), k)
    assert even.max() - even.min() <= 1
    heavy = shares(np.arange(1, groups + 1.0), np.full(groups, 1000), k)
    assert (np.diff(heavy) >= 0).all()


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


# Neighbours of centers --------------------------------------------------------------------------


@quick(30)
@given(SEEDS, st.integers(1, 30), DIMS, st.integers(1, 40), st.integers(1, 40))
def test_the_nearest_groups(seed: int, rows: int, dim: int, count: int, probes: int) -> None:
    rng = np.random.default_rng(seed)
    probes = min(probes, count)
    data, centers = whole(rng, rows, dim, np.uint8), whole(rng, count, dim, np.float32)
    frame = Frame(np.zeros(dim, np.float32), 2.0**-8, False)
    inside, half = inner(centers, frame)
    filled = -(-count // 4) * 4
    inside = np.concatenate([inside[:-1], np.zeros((filled - count, frame.wide), np.float32)])
    half = np.concatenate([half[:-1], np.full(filled - count, FAR, np.float32)])
    groups = over(data, frame).nearest_groups(inside, half, probes)
    values = (moved(centers, frame) ** 2).sum(axis=1) / 2
    values = values - moved(data, frame) @ moved(centers, frame).T
    assert groups.shape == (rows, probes)
    found = np.take_along_axis(values, groups, axis=1)
    assert np.array_equal(found, np.sort(values, axis=1)[:, :probes])
    for line, own in zip(groups, values, strict=True):
        assert len(set(line.tolist())) == probes
        assert all(own[a] < own[b] or a < b for a, b in pairwise(line))


def check_list(
    own: int, line: NDArray[Any], near: NDArray[Any], able: set[int], values: Any, k: int
) -> None:
    """Check that a list has the center itself and the best of those that were able."""
    able = able - {own}
    room = len(line) - 1
    kept = [c for c in line.tolist() if c < k]
    assert own in kept
    kept.remove(own)
    assert len(set(kept)) == len(kept) == min(room, len(able))
    assert (line == k).sum() == room - len(kept)
    assert set(kept) <= able
    best = sorted(values[own, c] for c in able)
    assert sorted(values[own, c] for c in kept) == best[:room]
    nearest = [int(c) for c in near if c != own]
    assert len(set(nearest)) == len(nearest) == min(3, len(able))
    assert [values[own, c] for c in nearest] == best[: len(nearest)]
    assert set(nearest) <= set(kept)


def all_values(centers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ‖b‖²/2 − a·b for all pairs (a, b)."""
    wide = centers.astype(np.float64)
    found: NDArray[np.float64] = (wide**2).sum(axis=1) / 2 - wide @ wide.T
    return found


@quick(40)
@given(SEEDS, st.integers(1, 90), DIMS, st.sampled_from([4, 8, 16, 64]), st.booleans())
def test_lists_of_all_centers(seed: int, k: int, dim: int, neighbours: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 3 if tied else 200, (k, dim)).astype(np.float32)
    frame = plain(dim)
    inside, half = inner(centers, frame)
    found = build(
        over(centers, frame),
        inside,
        half,
        group_centers(inside[:-1], Job(threads=1), 0),
        neighbours,
    )
    assert found.lists.shape == (k, min(neighbours, -(-k // 4) * 4))
    values = all_values(centers)
    for own in range(k):
        assert (np.diff(found.lists[own][found.lists[own] < k]) > 0).all()
        check_list(own, found.lists[own], found.near[own], set(range(k)), values, k)


def test_lists_of_the_nearest_groups_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_CANDIDATES", 100)
    monkeypatch.setattr(graph, "_CANDIDATES_PER_NEIGHBOUR", 1)
    monkeypatch.setattr(graph, "_GROUPS", 6)
    rng = np.random.default_rng(0)
    k, frame = 700, plain(4)
    centers = rng.integers(0, 200, (k, 4)).astype(np.float32)
    inside, half = inner(centers, frame)
    coarse = group_centers(inside[:-1], Job(threads=1), 0)
    assert sorted(coarse.members.tolist()) == list(range(k))
    found = build(over(centers, frame), inside, half, coarse, 16)
    assert (np.diff(found.lists, axis=1) > 0).all()
    assert (found.lists == np.arange(k)[:, None]).any(axis=1).all()
    true = np.argsort(all_values(centers), axis=1)[:, :16]
    share = np.mean([len({*a} & {*b}) / 16 for a, b in zip(true, found.lists, strict=True)])
    assert 0.9 < share < 1


@quick(40)
@given(
    seed=SEEDS,
    k=st.integers(1, 60),
    dim=DIMS,
    neighbours=st.sampled_from([4, 8, 20, 64]),
    tied=st.booleans(),
    moves=st.integers(0, 8),
)
def test_renewed_lists_hold_the_best_that_they_can_know(
    seed: int, k: int, dim: int, neighbours: int, tied: bool, moves: int
) -> None:
    """A center knows its own and its nearest's lists, and who was moved beside whom."""
    rng = np.random.default_rng(seed)
    high, frame = 3 if tied else 200, plain(dim)
    width = min(neighbours, -(-k // 4) * 4)
    work = over(np.zeros((1, dim), np.float32), frame)
    everyone = np.arange(k, dtype=np.int32)
    before, _ = inner(rng.integers(0, high, (k, dim)).astype(np.float32), frame)
    old = Graph(np.empty((k, width), np.int32), np.empty((k, 3), np.int32))
    _, half = inner(before[:-1, :dim], frame)
    graph_kernels.nearest_of_many(before, half, everyone, everyone, old.lists, old.near)
    mixed = rng.permutation(k)[: 2 * min(moves, k // 2)].reshape(-1, 2).astype(np.int64)
    which = rng.random(k) < 0.7
    which[mixed.ravel()] = True
    centers = rng.integers(0, high, (k, dim)).astype(np.float32)
    inside, half = inner(centers, frame)
    found = renew(work, old, inside, half, mixed, which)
    values = all_values(centers)
    source = everyone.tolist()
    twin: dict[int, int] = {}
    for donor, victim in mixed.tolist():
        source[donor] = victim
        twin[victim] = donor
    for own in range(k):
        if not which[own]:
            assert np.array_equal(found.lists[own], old.lists[own])
            assert np.array_equal(found.near[own], old.near[own])
            continue
        known = {source[own], *old.near[source[own]].tolist()}
        able = {c for other in known for c in old.lists[other].tolist() if c < k}
        able |= {twin[c] for c in able if c in twin}
        check_list(own, found.lists[own], found.near[own], able, values, k)


@quick(30)
@given(SEEDS, st.integers(2, 40), st.integers(0, 20))
def test_pairs_of_donors_and_victims(seed: int, k: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, k)
    totals = np.stack([counts, counts, rng.integers(0, 99, k), rng.integers(0, 99, k)], axis=1)
    totals[counts == 0] = 0
    near = (np.arange(k)[:, None] + rng.integers(1, k, (k, 3))).astype(np.int32) % np.int32(k)
    cost = np.where(counts == 0, -1, totals[:, 3])
    donors = np.argsort(cost, kind="stable")[:most]
    victims = np.argsort(-totals[:, 2], kind="stable")[:most]
    pairs = graph_kernels.pair_donors(totals, near, donors, victims, 0.5, 1)
    assert len(np.unique(pairs)) == pairs.size  # nobody twice, and nobody beside itself
    gone = pairs[:, 0].tolist()
    for donor, victim in pairs.tolist():
        assert donor in donors
        assert victim in victims
        assert totals[victim, 2] >= 1
        if counts[donor] > 0:
            assert totals[donor, 3] < 0.5 * totals[victim, 2]
            # Its rows go to one that does not leave.
            assert near[donor, 0] not in gone
    assert (np.diff(totals[pairs[:, 1], 2]) <= 0).all()  # the worst first


def test_empty_centers_go_where_they_are_wanted_most() -> None:
    totals = np.array([[5, 5, 90, 50], [0, 0, 0, 0], [5, 5, 10, 1], [0, 0, 0, 0], [9, 9, 50, 40]])
    near = np.zeros((5, 3), np.int32)
    cost = np.where(totals[:, 0] == 0, -1, totals[:, 3])
    donors = np.argsort(cost, kind="stable")
    victims = np.argsort(-totals[:, 2], kind="stable")
    pairs = graph_kernels.pair_donors(totals, near, donors, victims, 0.5, 1)
    assert pairs.tolist() == [[1, 0], [3, 4]]
