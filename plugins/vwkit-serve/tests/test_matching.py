"""Correspondences against slow and obvious counterparts, and known movements found again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vwkit_serve.matching import _unlikely, agreeing, pairs_by_descriptor, pairs_by_word
from vwkit_serve.pictures import Pictures

from vwkit.types import Item

SIZE = (640, 480)
WORDS = st.lists(st.integers(-1, 9), max_size=12)


def points(rng, rows):
    found = np.zeros((rows, 5), np.float32)
    found[:, 0], found[:, 1] = rng.uniform(0, 640, rows), rng.uniform(0, 480, rows)
    found[:, 2], found[:, 3] = rng.uniform(4, 20, rows), rng.uniform(0, 360, rows)
    return found


def moved(first, turn, scale, shift):
    """Turn, scale and shift keypoints, as a camera would."""
    second = first.copy()
    z = (first[:, 0] + 1j * first[:, 1]) * scale * np.exp(1j * np.radians(turn)) + shift
    second[:, 0], second[:, 1] = z.real, z.imag
    second[:, 2] *= scale
    second[:, 3] = (second[:, 3] + turn) % 360
    return second


@given(WORDS, WORDS)
def test_pairs_by_word_are_all_that_share_one(first, second):
    expected = {
        (i, j) for i, a in enumerate(first) for j, b in enumerate(second) if a == b and a >= 0
    }
    often = {w for w in range(10) if first.count(w) * second.count(w) > 36}
    expected = {(i, j) for i, j in expected if first[i] not in often}
    found = pairs_by_word(np.array(first, np.int64), np.array(second, np.int64))
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert len(found) == len(expected)
    times = [first.count(first[i]) * second.count(first[i]) for i, _ in found.tolist()]
    assert times == sorted(times)


def test_pairs_by_word_have_a_bound():
    words = np.repeat(np.arange(2000), 6)
    assert len(pairs_by_word(words, words)) <= 4000


def test_pairs_by_descriptor_are_each_others_nearest():
    rng = np.random.default_rng(3)
    first = rng.normal(size=(60, 16))
    second = np.concatenate(
        [first[10:40] + rng.normal(0, 0.05, (30, 16)), rng.normal(size=(40, 16))]
    )
    found = pairs_by_descriptor(first, second, np.ones(60), np.ones(70))
    true = {(10 + i, i) for i in range(30)}
    assert {tuple(pair) for pair in found.tolist()} & true == true
    distances = ((first[:, None] - second[None]) ** 2).sum(axis=2)
    for i, j in found.tolist():
        assert distances[i].argmin() == j
        assert distances[:, j].argmin() == i


@pytest.mark.parametrize("rows", [(0, 5), (5, 0), (1, 1)])
def test_too_few_to_compare(rows):
    a, b = np.zeros((rows[0], 4)), np.zeros((rows[1], 4))
    assert pairs_by_descriptor(a, b, a[:, 0], b[:, 0]).shape == (0, 2)
    found = agreeing(
        np.zeros((0, 2), np.int64), np.zeros((rows[0], 5)), np.zeros((rows[1], 5)), SIZE
    )
    assert (len(found.pairs), found.verified) == (0, False)


@pytest.mark.parametrize(
    ("turn", "scale", "shift"),
    [(0, 1.0, 0), (30, 0.7, 60 + 20j), (180, 1.5, 900 + 700j), (5, 3.0, -400)],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_known_movement_is_found_among_outliers(turn, scale, shift, seed):
    rng = np.random.default_rng(seed)
    first = points(rng, 120)
    second = moved(first, turn, scale, shift)
    second[:, :2] += rng.normal(0, 1.5, (120, 2))
    wrong = rng.choice(120, 70, replace=False)
    second[wrong] = points(rng, 70)
    order = rng.permutation(120)
    found = agreeing(np.column_stack([order, order]), first, second, SIZE)
    assert found.verified
    assert found.candidates == 120
    right = set(range(120)) - set(wrong.tolist())
    kept = set(found.pairs[:, 0].tolist())
    assert len(kept & right) >= 45
    assert len(kept - right) <= 3


def test_pairs_by_chance_are_not_verified():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = int(rng.integers(1, 300))
        pairs = np.column_stack([np.arange(rows), np.arange(rows)])
        found = agreeing(pairs, points(rng, rows), points(rng, rows), SIZE)
        assert not found.verified, seed
        assert len(found.pairs) == rows


def test_each_point_is_used_once():
    first = np.repeat(points(np.random.default_rng(1), 20), 3, axis=0)
    pairs = np.array([(i, j) for i in range(60) for j in range(60) if i // 3 == j // 3])
    found = agreeing(pairs, first, first, SIZE)
    assert found.verified
    assert len(set(found.pairs[:, 0])) == len(set(found.pairs[:, 1])) == len(found.pairs) == 60


def test_damaged_keypoints_are_left_out():
    rng = np.random.default_rng(2)
    first = points(rng, 60)
    second = first.copy()
    first[:5, 0], first[5:10, 2], second[10:15, 1] = np.nan, np.inf, -np.inf
    first[15:20, 2] = -1
    second[20:25, :2] = 3e38
    pairs = np.column_stack([np.arange(60), np.arange(60)])
    found = agreeing(pairs, first, second, (0, 0))
    assert set(found.pairs[:, 0].tolist()) <= set(range(15, 60))
    assert agreeing(pairs, first, second, SIZE).verified


@given(st.floats(0, 100))
def test_more_are_needed_where_more_agree_by_chance(expected):
    assert 4 <= _unlikely(expected) <= _unlikely(expected + 1)
    assert _unlikely(expected) > expected


def test_the_memory_of_pictures_is_bounded(folder):
    pictures = Pictures(10**6, kept_bytes=10_000)
    items = [
        Item(row, path.name, str(path))
        for row, path in enumerate(sorted((folder / "photos").glob("*-left.png")))
    ]
    for item in items * 3:
        for size in (40, 60, 80, 100):
            made, real = pictures.make(item, size)
            assert real
            assert pictures._held == sum(map(len, pictures._kept.values())) <= 10_000
            assert pictures.kept(item, size) == made
    assert 0 < len(pictures._kept) < 4 * len(items)
    tiny = Pictures(10**6, kept_bytes=10)
    assert tiny.make(items[0], 100)[1]
    assert tiny.kept(items[0], 100) is None
