"""PQk-means finds what the reference and the bare library find."""

from __future__ import annotations

import importlib
import itertools
from unittest import mock

import _pqkmeans
import numpy as np
import pytest
import vwkit_pqkmeans_library as door
from hypothesis import given, settings
from hypothesis import strategies as st
from pqkmeans_fits import SEEDS, fit, float_book, handed_over, some_codes, whole_book
from vwkit_pqkmeans import PQKMeans

from vwkit.errors import PluginError
from vwkit.reference import pq as pq_reference
from vwkit.reference import pqkmeans as reference


def plain_rounds(codes, book, centers, iterations):
    """The reference, or None where a cluster lost its last row on the way."""
    for _ in range(iterations + 1):
        labels = reference.assign(codes, centers, book)
        if np.bincount(labels, minlength=len(centers)).min() == 0:
            return None
        centers = reference.update(codes, labels, centers, book)
    return True


class TestAgainstTheReference:
    @settings(max_examples=100, deadline=None)
    @given(
        seed=SEEDS,
        n=st.integers(1, 60),
        m=st.integers(1, 4),
        ks=st.sampled_from([2, 3, 16, 256]),
        few=st.sampled_from([0, 1024]),
        group=st.sampled_from([2, door.GROUP]),
        rows=st.sampled_from([7, None]),
        iterations=st.integers(1, 6),
        data=st.data(),
    )
    def test_the_same_rounds(self, seed, n, m, ks, few, group, rows, iterations, data):
        book, codes = whole_book(seed, m, ks), some_codes(seed, n, m, ks)
        k = data.draw(st.integers(1, min(n, 6)))
        start = codes[np.random.default_rng(seed).permutation(n)[:k]]
        if plain_rounds(codes, book, start, iterations) is None:
            return  # which center moves where differs by design; see below
        with handed_over(few, group, rows):
            found = fit(codes, book, k, init=start, iterations=iterations, tolerance=0.0)
        centers, labels, objective = reference.pqkmeans(codes, book, start, iterations)
        assert found.centers.tolist() == centers.tolist()
        assert found.centers.dtype == np.uint8
        assert found.labels.tolist() == labels.tolist()
        assert found.labels.dtype == np.int32
        # The reference adds one that is equal when nothing changes any more.
        assert found.objective == pytest.approx(objective[: len(found.objective)])
        assert found.objective[-1] == pytest.approx(objective[-1])

    @settings(max_examples=150, deadline=None)
    @given(
        seed=SEEDS,
        n=st.integers(1, 70),
        m=st.integers(1, 4),
        ks=st.sampled_from([2, 5, 256]),
        kind=st.sampled_from(["floats", "whole", "equal words", "far apart", "tiny", "huge"]),
        few=st.sampled_from([0, 1024]),
        group=st.sampled_from([3, door.GROUP]),
        weighted=st.booleans(),
        params=st.fixed_dictionaries(
            {
                "init": st.sampled_from(["k-means++", "random"]),
                "iterations": st.sampled_from([1, 2, 25]),
                "tolerance": st.sampled_from([0.0, 1e-4, 0.5]),
                "seed": SEEDS,
            }
        ),
        data=st.data(),
    )
    def test_what_every_result_keeps(
        self, seed, n, m, ks, kind, few, group, weighted, params, data
    ):
        book = whole_book(seed, m, ks) if kind == "whole" else float_book(seed, m, ks)
        if kind == "equal words":
            book[:, ks // 2 :] = book[:, :1]
        elif (
            kind == "far apart"
        ):  # groups whose insides are lost in float32, were they not subtracted
            book[:, ::2] += 1e6
        elif kind in ("tiny", "huge"):
            book *= np.float32(1e-30 if kind == "tiny" else 1e30)
        codes = some_codes(seed, n, m, ks)
        rng = np.random.default_rng(seed)
        weights = rng.exponential(1, n) * (rng.random(n) < 0.8) if weighted else None
        if weighted and not weights.any():
            weights[0] = 1
        k = data.draw(st.integers(1, n))
        with handed_over(few, group):
            found = fit(codes, book, k, weights=weights, **params)
            assert found.predict(codes).tolist() == found.labels.tolist()
            other = some_codes(seed + 1, 9, m, ks)
            alone = [int(found.predict(other[i : i + 1])[0]) for i in range(len(other))]
            assert found.predict(other).tolist() == alone
        table = pq_reference.symmetric_distance(codes, found.centers, book)
        own = table[np.arange(n), found.labels]
        spread = float(table.max())
        assert (own <= table.min(axis=1) * (1 + 1e-5) + 1e-12 * spread).all()
        true = reference.objective(codes, found.centers, found.labels, book, weights)
        assert found.objective[-1] == pytest.approx(true, rel=1e-9, abs=1e-30 * spread)
        for before, now in itertools.pairwise(found.objective):
            assert now <= before * (1 + 1e-5) + 1e-12 * spread
        # No cluster is empty that need not be; surplus centers repeat the last one in use.
        there = codes if weights is None else codes[weights > 0]
        decoded = pq_reference.decode(there, book)
        full = min(k, len(np.unique(decoded, axis=0)))
        counts = np.bincount(found.labels, weights, minlength=k)
        assert (counts[:full] > 0).all()
        assert (counts[full:] == 0).all()
        assert (found.centers[full:] == found.centers[full - 1]).all()
        # Each center was the best there is for its rows, before the last assignment at the latest.
        if params["tolerance"] == 0 and params["iterations"] == 25 and weights is None:
            moved = reference.update(codes, found.labels, found.centers, book)
            best = reference.objective(codes, moved, found.labels, book)
            assert found.objective[-1] <= best * (1 + 1e-5) + 1e-12 * spread

    @pytest.mark.parametrize("seed", range(5))
    def test_centers_that_are_as_good_in_all_but_rounding(self, seed):
        """What a product of matrices leaves open is decided as by the reference."""
        rng = np.random.default_rng(seed)
        half = rng.normal(0, 9, (3, 32, 2)).astype(np.float32)
        library = door.Library(np.concatenate([half, -half], axis=1))
        votes = rng.integers(0, 9, (400, 3, 32)) * rng.integers(0, 2, (400, 3, 32))
        votes = np.concatenate([votes, votes], axis=2)  # so c and c + 32 are equally good
        wanted = (library.tables * votes[:, :, None]).sum(axis=3).argmin(axis=2)
        found = door.medoids(votes.reshape(400, -1), tables=library.tables)
        assert found.tolist() == wanted.tolist()
        sums = np.einsum("ijk,jkl->ijl", votes.astype(float), library.tables)
        assert (sums.argmin(axis=2) != wanted).any()  # or this would test nothing

    def test_a_weight_counts_like_repeats(self):
        book, codes = whole_book(3, 3, 16), some_codes(3, 200, 3, 16)
        times = np.random.default_rng(0).integers(1, 5, len(codes))
        params = {"init": codes[:8], "iterations": 8, "tolerance": 0.0}
        one = fit(codes, book, 8, weights=times * 0.25, **params)
        many = fit(np.repeat(codes, times, axis=0), book, 8, **params)
        assert one.centers.tolist() == many.centers.tolist()
        assert np.repeat(one.labels, times).tolist() == many.labels.tolist()
        assert one.objective == pytest.approx(many.objective)

    def test_k_of_all_distinct_codes(self):
        book = float_book(1, 2, 16)
        codes = np.unique(some_codes(1, 90, 2, 16), axis=0)
        found = fit(codes, book, len(codes), init="random")
        assert sorted(found.labels.tolist()) == list(range(len(codes)))
        assert found.objective[-1] == 0

    def test_it_is_about_as_good_as_the_reference(self):
        book, codes = float_book(5, 4, 16), some_codes(5, 1500, 4, 16)
        found = [fit(codes, book, 12, seed=seed).objective[-1] for seed in range(3)]
        rng = np.random.default_rng(5)
        starts = [codes[rng.permutation(len(codes))[:12]] for _ in range(3)]
        best = [
            reference.pqkmeans(codes, book, start, 25, tolerance=1e-4)[2][-1] for start in starts
        ]
        assert sum(found) <= 1.03 * sum(best)


class TestAgainstTheBareLibrary:
    @pytest.mark.parametrize("seed", range(4))
    def test_from_the_same_start_it_ends_the_same(self, seed):
        book, codes = whole_book(seed, 4, 64), some_codes(seed, 3000, 4, 64)
        begin = _pqkmeans.PQKMeans(book, 20, 0, False)
        begin.fit(codes.reshape(-1))
        start = np.array(begin.cluster_centers_, np.uint8)
        bare = _pqkmeans.PQKMeans(book, 20, 7, False)
        bare.fit(codes.reshape(-1))
        # Its seventh iteration only assigns.
        found = fit(codes, book, 20, init=start, iterations=6, tolerance=0.0)
        assert found.centers.tolist() == bare.cluster_centers_
        assert found.labels.tolist() == bare.labels_

    @pytest.mark.parametrize("scale", [1, 1e-25, 1e25])
    @pytest.mark.parametrize("n", [50, 2000])
    def test_predict_is_that_of_the_library(self, n, scale):
        book, codes = float_book(7, 8, 256), some_codes(7, n, 8, 256)
        engine = _pqkmeans.PQKMeans(book, 300, 1, False)
        engine.set_cluster_centers(some_codes(8, 300, 8, 256).tolist())
        found = PQKMeans.from_centers(engine.cluster_centers_, book * np.float32(scale))
        assert found.predict(codes).tolist() == [engine.predict_one(code) for code in codes]

    def test_more_centers_than_one_call_takes(self):
        book, codes = float_book(9, 4, 256), some_codes(9, 3000, 4, 256)
        found = PQKMeans.from_centers(some_codes(10, 5000, 4, 256), book)
        table = pq_reference.symmetric_distance(codes, found.centers, book)
        assert found.predict(codes).tolist() == table.argmin(axis=1).tolist()

    def test_a_version_that_begins_in_another_way_is_noticed(self):
        book, codes = float_book(2, 2, 16), some_codes(2, 1500, 2, 16)
        seats = np.arange(5), np.arange(5, 1505)
        with (
            mock.patch.object(door, "_seats", return_value=seats),
            pytest.raises(PluginError, match="begins in another way"),
        ):
            fit(codes, book, 5, init=codes[:5])

    def test_without_the_library(self):
        found = PQKMeans.from_centers([[0], [1]], [[[0], [1]]])
        with (
            mock.patch.object(importlib, "import_module", side_effect=ImportError("no such file")),
            pytest.raises(PluginError, match="pip install pqkmeans .*CMake.* graph-pqkmeans"),
        ):
            found.predict([[1]])
