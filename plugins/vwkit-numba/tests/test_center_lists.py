"""Which centers are near, and beside which one that is spared is put, against slow, plain NumPy.

Where vectors are whole numbers, every product is exact in float32, so that answers are compared to
the last bit, ties included.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import DIMS, FAR, SEEDS, moved, over, plain, quick, whole
from numpy.typing import NDArray
from vwkit_numba import graph, graph_kernels
from vwkit_numba.coarse import group_centers
from vwkit_numba.graph import Graph, build, renew
from vwkit_numba.passes import Frame, inner

from vwkit.jobs import Job


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
