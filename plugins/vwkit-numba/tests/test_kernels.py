"""The smallest compiled kernels, which multiply, sort and choose, against slow, plain NumPy."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import SEEDS, quick
from vwkit_numba import graph_kernels, kernels, lanes
from vwkit_numba.start import shares

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
