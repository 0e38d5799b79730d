"""The kernels: labels and neighbours are those of float64, whatever the data and the blocks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwkit import blocks, exact_search, kernels, reference
from vwkit.exact_search import search_rows
from vwkit.metrics import normalised, pair_distances, squared_norms

KINDS = ("uint8", "duplicates", "mixed", "tiny", "underflow", "offset", "huge", "lattice")


def make(kind: str, rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return (n, d) rows that make trouble in their own way."""
    if kind == "uint8":
        return rng.integers(0, 3, (n, d)).astype(np.uint8)
    if kind == "duplicates":
        return rng.normal(size=(3, d)).astype(np.float32)[rng.integers(0, 3, n)]
    if kind == "mixed":
        return (rng.normal(size=(n, d)) * 10.0 ** rng.integers(-44, 38, (n, 1))).astype(np.float32)
    if kind == "tiny":
        return (rng.integers(-9, 9, (n, d)) * 1e-44).astype(np.float32)
    if kind == "underflow":  # squares are subnormal float32
        return (rng.integers(-2, 3, (n, d)) * 1e-22).astype(np.float32)
    if kind == "offset":
        return (rng.normal(size=(n, d)) + 1e6).astype(np.float32)
    if kind == "huge":
        return (rng.choice([-3e38, -1e38, 0, 1e38, 3e38], (n, d))).astype(np.float32)
    return (rng.integers(-1, 2, (n, d)) * 10.0 ** rng.choice([-20, 0, 20], (n, d))).astype(
        np.float32
    )


@pytest.fixture
def small_blocks(monkeypatch):
    """Cross every block boundary with few rows."""
    for module in (kernels, exact_search):
        monkeypatch.setattr(module, "CENTERS", 8)
        monkeypatch.setattr(module, "CELLS", 64)
        monkeypatch.setattr(module, "PAIR_BYTES", 256)
    monkeypatch.setattr(exact_search, "_SPARE", 1)


cases = given(
    rows_kind=st.sampled_from(KINDS),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 40),
    k=st.integers(1, 40),
    d=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)


@pytest.mark.usefixtures("small_blocks")
class TestAnyData:
    @settings(max_examples=200, deadline=None)
    @cases
    def test_labels_are_the_float64_argmin(self, rows_kind, kind, n, k, d, seed):
        rng = np.random.default_rng(seed)
        rows = make(rows_kind, rng, n, d)
        centers = make(kind, rng, k, d).astype(np.float32)
        found = kernels.nearest_rows(rows, centers)
        assert found.tolist() == reference.lloyd.assign(rows, centers).tolist()

    @settings(max_examples=200, deadline=None)
    @cases
    def test_search_finds_the_float64_neighbours(self, rows_kind, kind, n, k, d, seed):
        rng = np.random.default_rng(seed)
        queries = make(rows_kind, rng, n, d).astype(np.float32)
        vectors = make(kind, rng, k, d).astype(np.float32)
        allowed = rng.random(k) < 0.7
        if seed % 2 or not allowed.any():
            allowed = np.ones(k, bool)
        wanted = int(rng.integers(1, allowed.sum() + 1))
        rows, distances = search_rows(queries, vectors, wanted, "l2", allowed)
        true_rows, true = reference.search.search(
            queries, vectors, wanted, "l2", allowed=np.flatnonzero(allowed)
        )
        assert rows.tolist() == true_rows.tolist()
        with np.errstate(over="ignore"):
            assert np.array_equal(distances, true.astype(np.float32))

    @settings(max_examples=200, deadline=None)
    @cases
    def test_cosine_and_ip_find_the_true_distances(self, rows_kind, kind, n, k, d, seed):
        rng = np.random.default_rng(seed)
        queries = make(rows_kind, rng, n, d).astype(np.float32)
        vectors = make(kind, rng, k, d).astype(np.float32)
        allowed = rng.random(k) < 0.7
        allowed[0] = True
        wanted = int(rng.integers(1, allowed.sum() + 1))
        for metric in ("cosine", "ip"):
            rows, distances = search_rows(queries, vectors, wanted, metric, allowed)
            _, true = reference.search.search(
                queries, vectors, wanted, metric, allowed=np.flatnonzero(allowed)
            )
            assert allowed[rows].all()
            assert all(len(set(row)) == wanted for row in rows.tolist())
            held = np.isfinite(distances)  # float32 has no room for the rest
            assert (np.abs(true[~held]) > 3e38).all()
            off = np.abs(distances[held] - true[held])
            assert (off <= 1e-6 * (1 + np.abs(true[held]))).all()

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(0, 9999))
    def test_hamming(self, n, k, d, seed):
        rng = np.random.default_rng(seed)
        queries = rng.integers(0, 4, (n, d), np.uint8)
        vectors = rng.integers(0, 4, (k, d), np.uint8)
        allowed = rng.random(k) < 0.5
        allowed[-1] = True
        wanted = int(allowed.sum())
        found = search_rows(queries, vectors, wanted, "hamming", allowed)
        true = reference.search.search(
            queries, vectors, wanted, "hamming", allowed=np.flatnonzero(allowed)
        )
        assert found[0].tolist() == true[0].tolist()
        assert found[1].tolist() == true[1].tolist()


class TestRealBlocks:
    def test_more_centers_than_a_block_and_ties_across_it(self):
        rng = np.random.default_rng(0)
        centers = rng.integers(0, 256, (blocks.CENTERS + 7, 4)).astype(np.float32)
        centers[-3:] = centers[5]  # ties over the block's edge go to the lowest index
        rows = np.concatenate([centers[-3:], rng.integers(0, 256, (700, 4))]).astype(np.uint8)
        found = kernels.nearest_rows(rows, centers)
        assert found.tolist() == reference.lloyd.assign(rows, centers).tolist()
        assert found[:3].tolist() == [5, 5, 5]

    def test_a_row_beyond_all_float64_resolution_ties_to_the_lowest(self):
        rows = np.array([[1e17], [1e30]], np.float32)
        assert kernels.nearest_rows(rows, np.array([[0], [1]], np.float32)).tolist() == [0, 0]

    def test_labels_do_not_depend_on_the_batch_or_the_layout(self):
        rng = np.random.default_rng(1)
        rows = (rng.normal(size=(300, 7)) + 100).astype(np.float32)
        centers = rows[:50] + np.float32(1e-5)
        whole = kernels.nearest_rows(rows, centers)
        single = [int(kernels.nearest_rows(row[None], centers)[0]) for row in rows]
        assert whole.tolist() == single
        strided = np.asfortranarray(rows)[::2]
        assert kernels.nearest_rows(strided, centers).tolist() == single[::2]

    def test_few_centers_of_many_dimensions_need_little_memory(self, monkeypatch):
        largest = []
        left = kernels._Table.left
        monkeypatch.setattr(
            kernels._Table,
            "left",
            lambda self, rows: (largest.append(rows.size), left(self, rows))[1],
        )
        kernels.nearest_rows(np.zeros((3000, 2048), np.uint8), np.ones((2, 2048), np.float32))
        assert max(largest) <= blocks.CELLS

    def test_no_rows_and_one_center(self):
        assert kernels.nearest_rows(np.zeros((0, 3)), np.zeros((2, 3), np.float32)).shape == (0,)
        assert kernels.nearest_rows(np.ones((2, 3)), np.zeros((1, 3), np.float32)).tolist() == [
            0,
            0,
        ]


class TestSums:
    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(1, 10**9),
        st.floats(1e-300, 1e300, allow_nan=False),
    )
    def test_fixed_point_scale_is_the_largest_that_fits(self, rows, largest):
        s = kernels.fixed_point_scale(rows, largest)
        total = Fraction(largest) * rows
        assert total * Fraction(2) ** s < 2**62
        assert s == 1000 or total * Fraction(2) ** (s + 1) >= 2**62

    def test_fixed_point_scale_of_extremes(self):
        assert kernels.fixed_point_scale(10, 0.0) == 0
        assert kernels.fixed_point_scale(1, 5e-324) == 1000

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0, 1e300, allow_subnormal=True), max_size=30), st.randoms())
    def test_exact_sum(self, values, random):
        expected = sum((Fraction(value) for value in values), Fraction(0))
        random.shuffle(values)
        half = len(values) // 2
        found = sum(
            kernels.exact_sum(np.array(part, np.float64)) for part in (values[:half], values[half:])
        )
        assert Fraction(found, 1 << 1126) == expected

    @settings(max_examples=50, deadline=None)
    @given(
        st.integers(1, 60), st.integers(1, 4), st.integers(0, 9999), st.booleans(), st.booleans()
    )
    def test_sums_do_not_depend_on_order(self, n, d, seed, whole, weighted):
        rng = np.random.default_rng(seed)
        rows = make("uint8" if whole else "offset", rng, n, d)
        labels = rng.integers(0, 5, n)
        weights = rng.random(n) if weighted else None
        scale = (
            0 if whole and not weighted else kernels.fixed_point_scale(n, float(np.abs(rows).max()))
        )
        arguments = {"scale": scale, "weight_scale": kernels.fixed_point_scale(n, 1.0)}

        def totals(order, cuts):
            sums, counts = np.zeros((5, d), np.int64), np.zeros(5, np.int64)
            for part in np.split(order, cuts):
                held = kernels.accumulate(
                    rows[part],
                    labels[part],
                    None if weights is None else weights[part],
                    **arguments,
                )
                sums[held.used] += held.sums
                counts[held.used] += held.counts
            return sums, counts

        one = totals(np.arange(n), [])
        two = totals(rng.permutation(n), sorted(rng.integers(0, n + 1, 3)))
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])
        w = np.ones(n) if weights is None else weights
        for label in range(5):
            mine = labels == label
            expected = (rows[mine].astype(np.float64) * w[mine, None]).sum(axis=0)
            np.testing.assert_allclose(
                np.ldexp(one[0][label].astype(float), -scale), expected, rtol=1e-9, atol=1e-9
            )

    def test_farthest_rows_are_farthest_first_and_lowest_on_ties(self):
        rows = np.array([[0], [5], [-5], [1], [5]], np.float32)
        distances, places = kernels.farthest_rows(
            rows, np.zeros(5, np.int32), centers=np.zeros((1, 1), np.float32), count=4
        )
        assert places.tolist() == [1, 2, 4, 3]
        assert distances.tolist() == [25, 25, 25, 1]


class TestMetrics:
    @pytest.mark.parametrize("kind", KINDS)
    def test_norms_are_those_of_float64(self, kind):
        rows = make(kind, np.random.default_rng(2), 20, 5)
        np.testing.assert_allclose(
            squared_norms(rows), (rows.astype(np.float64) ** 2).sum(axis=1), rtol=1e-12
        )

    def test_normalised_keeps_zero_rows_and_gives_length_one(self):
        rows = np.array([[0, 0], [3, 4], [1e-45, 0], [3e38, 3e38]], np.float32)
        lengths = np.linalg.norm(normalised(rows).astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, [0, 1, 1, 1], rtol=1e-6)

    def test_distances_do_not_depend_on_the_layout(self):
        rng = np.random.default_rng(3)
        a, b = rng.normal(size=(2, 50, 9)).astype(np.float32)
        for metric in ("l2", "cosine", "ip"):
            plain = pair_distances(a, b, metric)
            assert np.array_equal(plain, pair_distances(np.asfortranarray(a), b, metric))
            assert np.array_equal(plain[7:8], pair_distances(a[7:8], b[7:8], metric))
