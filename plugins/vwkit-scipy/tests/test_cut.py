"""The cut of a tree: its labels, and how late parameters move it without joining anew."""

from __future__ import annotations

import numpy as np
import pytest
from agglomerative_rows import examples, made, rows
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from vwkit.reference import agglomerative as reference
from vwkit.reference.agglomerative import LINKAGES


class TestCut:
    @examples
    @given(
        st.integers(0, 2**16),
        st.integers(1, 40),
        st.sampled_from(LINKAGES),
        st.floats(0, 1),
        st.integers(1, 4),
        st.sampled_from(["diameter", "root"]),
    )
    def test_labels_are_those_of_the_reference(self, seed, n, linkage, similarity, size, scale):
        one = made(linkage=linkage, similarity=similarity, min_size=size, scale=scale)
        one.fit(rows(seed, n, 2, "grid"))
        largest = one.diameter if scale == "diameter" else one.tree[:, 2].max(initial=0)
        assert one.cut_height == (1 - similarity) * largest
        assert (one.labels == reference.cut(one.tree, one.cut_height, size)).all()

    @examples
    @given(st.integers(0, 2**16), st.integers(1, 40), st.sampled_from(LINKAGES), st.integers(1, 9))
    def test_at_most_so_many_clusters(self, seed, n, linkage, clusters):
        one = made(linkage=linkage, clusters=clusters, min_size=1).fit(rows(seed, n))
        assert one.labels.min() >= 0
        assert one.labels.max() + 1 <= clusters
        if linkage not in ("centroid", "median"):  # two heights of which may be one, inverted
            assert one.labels.max() + 1 == min(n, clusters)

    def test_as_imagecluster_cuts(self):
        """The same images, the same similarity, the same groups."""
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import pdist

        data = rows(11, 150, 6, "groups")
        apart = pdist(data.astype(np.float64))
        for similarity in (0.1, 0.5, 0.9):
            groups = fcluster(linkage(apart, "average"), apart.max() * (1 - similarity), "distance")
            labels = made(similarity=similarity, min_size=1).fit(data).labels
            pairs = np.unique(np.stack([groups, labels]), axis=1).shape[1]
            assert pairs == groups.max() == labels.max() + 1

    def test_numbers_go_by_size_then_first_row(self):
        data = [[0.0], [50.0], [50.0], [0.0], [90.0], [90.0], [90.0], [20.0]]
        one = made(height=1.0, min_size=1).fit(data)
        assert one.labels.tolist() == [1, 2, 2, 1, 0, 0, 0, 3]
        one.min_size = 3
        assert one.labels.tolist() == [-1, -1, -1, -1, 0, 0, 0, -1]

    def test_late_parameters_cut_again_and_join_nothing(self, monkeypatch, tmp_path):
        one = made(similarity=0.9).fit(rows(12, 80, 3, "groups"))
        one.save(tmp_path / "saved")
        loaded = vwkit.load(tmp_path / "saved")

        def never(*_):
            raise AssertionError("it was fitted again")

        monkeypatch.setattr("vwkit_scipy.agglomerative.in_memory", never)
        monkeypatch.setattr("vwkit_scipy.agglomerative.bounded", never)
        for late in ({"similarity": 0.2}, {"height": 1.0}, {"clusters": 3}, {"min_size": 20}):
            name, value = next(iter(late.items()))
            copied = loaded.with_late(late)
            setattr(loaded, name, value)
            assert (copied.labels == loaded.labels).all()
            assert getattr(loaded, name) == value
        assert loaded.clusters == 3
        assert loaded.height is None
        assert loaded.similarity is None
        assert one.similarity == 0.9

    def test_another_cut_replaces_the_one_before(self):
        one = made().fit(rows(13, 20))
        one.height = 0.5
        assert one.similarity is None
        with pytest.raises(vwkit.ParameterError, match="less than or equal to 1"):
            one.similarity = 2.0
        assert (one.height, one.similarity) == (0.5, None)
        with pytest.raises(vwkit.ParameterError, match="nothing says where to cut"):
            one.height = None
        assert one.height == 0.5

    @pytest.mark.parametrize(
        ("params", "text"),
        [
            ({"similarity": 0.5, "height": 1.0}, "similarity and height both say where to cut"),
            ({"similarity": 0.5, "clusters": 2}, "similarity and clusters both say"),
            ({"height": 0.5, "clusters": 2}, "height and clusters both say"),
            ({"similarity": None}, "nothing says where to cut; give one of similarity, height"),
            ({"similarity": 1.5}, "less than or equal to 1"),
            ({"height": -1.0}, "greater than or equal to 0"),
            ({"clusters": 0}, "greater than 0"),
            ({"linkage": "ward", "distance": "cosine"}, "ward is about means and needs euclidean"),
            ({"linkage": "mean"}, "'average'"),
        ],
    )
    def test_what_cannot_be(self, params, text):
        with pytest.raises(vwkit.ParameterError, match=text):
            made(**params)

    def test_two_late_cuts_at_once(self):
        one = made().fit(rows(14, 20))
        with pytest.raises(vwkit.ParameterError, match="similarity and height both say"):
            one.with_late({"similarity": 0.5, "height": 1.0})

    def test_defaults(self):
        one = made()
        assert (one.linkage, one.distance, one.similarity) == ("average", "euclidean", 0.5)
        assert (one.min_size, one.scale, one.height, one.clusters) == (2, "diameter", None, None)
        assert made(height=1.0).similarity is None
        assert not one.has_centers
        assert not one.fixed_k
        assert one.hierarchical
        with pytest.raises(vwkit.NotFittedError):
            one.labels  # noqa: B018

    def test_labels_cannot_be_written_to(self):
        labels = made().fit(rows(15, 9)).labels
        with pytest.raises(ValueError, match="read-only"):
            labels[0] = 5

    def test_summary(self):
        one = made(similarity=0.9).fit([[0.0], [1.0], [10.0], [11.0], [12.0], [50.0], [51.0]])
        assert one.summary("images").splitlines() == [
            "#images : #clusters",
            "2 : 2",
            "3 : 1",
            "#images in clusters: 7 of 7",
        ]
