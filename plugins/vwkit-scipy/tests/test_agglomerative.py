"""The tree of a fit: right for all rows and linkages, by both methods, in the memory there is."""

from __future__ import annotations

import logging
import math
import warnings

import numpy as np
import pytest
from agglomerative_rows import KINDS, METHODS, OF_MEANS, WAYS, examples, made, rows
from hypothesis import given
from hypothesis import strategies as st
from vwkit_scipy.bounded import bounded
from vwkit_scipy.in_memory import in_memory

import vwkit
from vwkit.jobs import Job, use_job
from vwkit.reference import agglomerative as reference
from vwkit.reference.agglomerative import LINKAGES


class TestTree:
    """Trees against the reference; equally near pairs may be joined in another order."""

    @examples
    @given(
        st.integers(0, 2**16),
        st.integers(2, 40),
        st.integers(1, 5),
        st.sampled_from(KINDS),
        st.sampled_from(WAYS),
        st.integers(2, 45),
    )
    def test_every_join_is_of_the_nearest_two(self, seed, n, dim, kind, way, groups):
        data = rows(seed, n, dim, kind)
        largest = reference.row_distances(data, way[1]).max()
        for tree, diameter in (in_memory(data, *way), bounded(data, *way, groups)):
            followed = reference.follow(tree, data, *way)
            slack = 1e-7 * max(largest, followed.max()) + 1e-12
            assert diameter == pytest.approx(largest, rel=1e-9, abs=1e-12)
            assert np.abs(followed[:, 0] - tree[:, 2]).max() <= slack
            assert (followed[:, 0] - followed[:, 1]).max() <= slack

    @pytest.mark.parametrize("way", WAYS, ids="-".join)
    def test_both_methods_give_the_tree_of_scipy(self, way):
        from scipy.cluster.hierarchy import linkage

        data = rows(1, 400, 6)
        true = linkage(data.astype(np.float64), *way)
        for method in METHODS:
            tree = made(linkage=way[0], distance=way[1], method=method).fit(data).tree
            assert np.allclose(tree, true, rtol=1e-6, atol=1e-9), method

    @pytest.mark.parametrize("linkage", ["average", "complete", "weighted"])
    def test_few_groups_in_the_table(self, linkage):
        data = rows(2, 700, 3, "groups")
        trees = [bounded(data, linkage, "euclidean", groups)[0] for groups in (2, 30, 10_000)]
        for tree in trees[1:]:
            assert np.allclose(tree[:, 2], trees[0][:, 2], rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize("kind", ["groups", "repeated", "noise"])
    @pytest.mark.parametrize("linkage", LINKAGES)
    def test_lists_that_run_out(self, linkage, kind):
        """More rows than a list holds, in groups larger than a list."""
        data = rows(3, 600, 3, kind)
        heights = [
            np.sort(made(linkage=linkage, method=method).fit(data).tree[:, 2]) for method in METHODS
        ]
        assert np.allclose(*heights, rtol=1e-7, atol=1e-7)

    def test_far_from_the_origin(self):
        data = rows(4, 300).astype(np.float64)
        for linkage in LINKAGES:
            for method in METHODS:
                near = made(linkage=linkage, method=method).fit(data)
                far = made(linkage=linkage, method=method).fit(data + 1e5)
                assert np.allclose(near.tree[:, 2], far.tree[:, 2], rtol=1e-8)

    @pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150, 1e300])
    def test_huge_and_tiny_numbers(self, scale):
        data = rows(5, 60).astype(np.float64)
        for linkage, distance in WAYS:
            for method in METHODS:
                plain = made(linkage=linkage, distance=distance, method=method).fit(data)
                other = made(linkage=linkage, distance=distance, method=method).fit(data * scale)
                factor = scale if distance == "euclidean" else 1.0
                assert np.allclose(plain.tree[:, 2] * factor, other.tree[:, 2], rtol=1e-6)
                assert other.diameter == pytest.approx(plain.diameter * factor)

    def test_numbers_that_overflow_are_refused(self):
        data = np.array([[1.7e308], [-1.7e308], [0.0]])
        with pytest.raises(vwkit.DataError, match="overflow; divide them"):
            made().fit(data)
        assert made(distance="cosine").fit(data).diameter == 2.0

    def test_a_row_far_away(self):
        """It leaves no digits in float32 for the others."""
        data = np.concatenate([rows(6, 80), [[1e9] * 4]]).astype(np.float64)
        for linkage in LINKAGES:
            trees = [made(linkage=linkage, method=method).fit(data).tree for method in METHODS]
            followed = reference.follow(trees[1], data, linkage)
            assert (followed[:-1, 0] - followed[:-1, 1]).max() <= 1e-5

    @pytest.mark.parametrize("method", METHODS)
    def test_dtypes(self, method):
        data = np.random.default_rng(7).integers(0, 255, (90, 5)).astype(np.uint8)
        trees = [made(method=method).fit(data.astype(dtype)).tree for dtype in ("u1", "f4", "f8")]
        assert (trees[0] == trees[1]).all()
        assert (trees[0] == trees[2]).all()

    @pytest.mark.parametrize("linkage", LINKAGES)
    def test_the_same_bytes_on_any_threads(self, linkage):
        data, trees = rows(8, 700, 8), []
        for threads in (1, 3):
            with use_job(Job(threads=threads)):
                trees.append(made(linkage=linkage, method="lists").fit(data).tree)
        assert trees[0].tobytes() == trees[1].tobytes()


class TestFewRows:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("way", WAYS, ids="-".join)
    def test_one_row(self, way, method):
        one = made(linkage=way[0], distance=way[1], method=method).fit([[3.0, 4.0]])
        assert one.tree.shape == (0, 4)
        assert one.labels.tolist() == [-1]
        assert one.diameter == one.cut_height == 0
        one.min_size = 1
        assert one.labels.tolist() == [0]
        one.clusters = 3
        assert one.labels.tolist() == [0]

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("linkage", LINKAGES)
    def test_two_rows(self, linkage, method):
        two = made(linkage=linkage, method=method).fit([[0.0, 0.0], [3.0, 4.0]])
        assert two.tree.tolist() == [[0, 1, 5, 2]]
        assert two.diameter == 5
        assert two.labels.tolist() == [-1, -1]
        two.similarity = 0.0
        assert two.labels.tolist() == [0, 0]

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("way", WAYS, ids="-".join)
    def test_equal_rows_are_one_cluster(self, way, method):
        data = np.tile([[1.0, 2.0, -3.0]], (50, 1))
        for similarity in (0.0, 0.5, 1.0):
            same = made(linkage=way[0], distance=way[1], method=method, similarity=similarity)
            assert same.fit(data).diameter == 0
            assert (same.labels == 0).all()
            assert (same.tree[:, 2] == 0).all()

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("way", WAYS, ids="-".join)
    def test_similarity_0_and_1(self, way, method):
        data = np.repeat(rows(9, 20), 2, axis=0)
        one = made(linkage=way[0], distance=way[1], method=method, similarity=1.0).fit(data)
        assert sorted(np.unique(one.labels, return_counts=True)[1]) == [2] * 20
        one.similarity = 0.0
        one.scale = "root"
        assert (one.labels == 0).all()
        if way[0] not in OF_MEANS:
            one.scale = "diameter"
            assert (one.labels == 0).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_zero_vectors_are_far_from_all(self, method):
        data = np.array([[1, 0], [0, 0], [2, 0], [0, 0]], np.float32)
        one = made(distance="cosine", linkage="single", method=method, similarity=0.9).fit(data)
        assert one.labels.tolist() == [0, -1, 0, -1]
        assert one.tree[:, 2].tolist() == [0, 1, 1]
        assert one.diameter == 1


class TestMemory:
    def test_a_table_that_does_not_fit(self):
        with use_job(Job(memory=50_000)), pytest.raises(vwkit.DataError, match="take method lists"):
            made(method="table").fit(rows(16, 300))

    @pytest.mark.parametrize(
        ("way", "few", "many"),
        [
            (("ward", "euclidean"), 3000, 3001),
            (("average", "cosine"), 3000, 3001),
            (("average", "euclidean"), 10_000, 10_001),
            (("complete", "cosine"), 10_000, 10_001),
        ],
    )
    def test_what_is_quicker_is_taken(self, way, few, many):
        one = made(linkage=way[0], distance=way[1])
        with use_job(Job(memory=1 << 40)):
            assert one._method(few, 8) == "table"
            assert one._method(many, 8) == "lists"
            assert made(linkage="centroid")._method(100_000, 8) == "table"
        with use_job(Job(memory=1 << 20)):
            assert one._method(few, 8) == "lists"

    def test_what_was_taken_is_logged(self, caplog):
        data = rows(17, 300)
        with caplog.at_level(logging.INFO, "vwkit"):
            plain = made().fit(data)
            with use_job(Job(memory=50_000)):
                other = made().fit(data)
        assert [one.getMessage() for one in caplog.records] == [
            "agglomerative: average linkage of 300 rows by a table of all distances",
            "agglomerative: average linkage of 300 rows by lists of nearest groups",
        ]
        assert np.allclose(plain.tree, other.tree)

    @pytest.mark.parametrize("way", WAYS, ids="-".join)
    def test_lists_need_no_square_of_memory(self, way):
        """Nothing is allocated that is nearly as large as the distances of all pairs."""
        import tracemalloc

        n = 6000
        data = rows(18, n, 2, "groups")
        if way[0] in ("centroid", "median"):
            data = data[:2500]
        budget = 20 << 20
        with use_job(Job(threads=1, memory=budget)):
            tracemalloc.start()
            made(linkage=way[0], distance=way[1], method="lists").fit(data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 8 * n**2 / 2 / 1.5
        assert math.isfinite(peak)


def test_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            for linkage, distance in WAYS:
                for method in METHODS:
                    one = made(linkage=linkage, distance=distance, method=method)
                    one.fit(rows(23, 60, 2, kind))
                    assert len(one.labels) == 60
