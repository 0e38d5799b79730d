from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vwkit_scipy.bounded import bounded
from vwkit_scipy.in_memory import in_memory

import vwkit
from vwkit.jobs import Job, use_job
from vwkit.reference import agglomerative as reference
from vwkit.reference.agglomerative import LINKAGES

OF_MEANS = ("ward", "centroid", "median")
WAYS = [(linkage, "euclidean") for linkage in LINKAGES]
WAYS += [(linkage, "cosine") for linkage in LINKAGES if linkage not in OF_MEANS]
METHODS = ("table", "lists")
examples = settings(deadline=None, max_examples=60)


def made(**params):
    return vwkit.create("clusterer", "agglomerative", **params)


def rows(seed, n, dim=4, kind="noise"):
    rng = np.random.default_rng(seed)
    if kind == "groups":
        found = rng.normal(size=(5, dim))[rng.integers(0, 5, n)] + rng.normal(0, 0.01, (n, dim))
    elif kind == "repeated":
        found = rng.normal(size=(n // 3 + 1, dim))[rng.integers(0, n // 3 + 1, n)]
    elif kind == "walk":
        found = np.cumsum(rng.normal(size=(n, dim)), axis=0)
    elif kind == "spread":
        found = np.exp(rng.normal(0, 4, (n, dim)))
    elif kind == "zeros":
        found = rng.normal(size=(n, dim))
        found[rng.random(n) < 0.2] = 0
    elif kind == "grid":
        found = rng.integers(0, 4, (n, dim))
    else:
        found = rng.normal(size=(n, dim))
    return np.ascontiguousarray(found, np.float32)


KINDS = ("noise", "groups", "repeated", "walk", "spread", "zeros", "grid")


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


class TestSaved:
    """A tree that is none never reaches SciPy."""

    def spoilt(self, tmp_path, change):
        one = made().fit(rows(19, 12))
        state = {name: np.array(array) for name, array in one._state().items()}
        change(state)
        one._state = lambda: state
        one.save(tmp_path / "saved")
        return tmp_path / "saved"

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda s: s["tree"].__setitem__((3, 0), 99), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 0), 15.0), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 0), -1), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 0), 0.5), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 2), np.nan), "NaN or infinity"),
            (lambda s: s["tree"].__setitem__((3, 2), np.inf), "NaN or infinity"),
            (lambda s: s["tree"].__setitem__((3, 2), -1e-9), "a height is negative"),
            (lambda s: s["tree"].__setitem__((10, 3), 5), "sizes do not add up"),
            (lambda s: s["tree"].__setitem__((10, 0), s["tree"][0, 0]), "joined twice"),
            (lambda s: s.update(tree=s["tree"][:-1]), r"12 rows make float64 of \(11, 4\)"),
            (lambda s: s.update(tree=s["tree"].astype(np.float32)), "float32 of shape"),
            (lambda s: s.update(tree=s["tree"][:, :3]), "of shape"),
            (lambda s: s.update(rows=np.array(13)), "13 rows"),
            (lambda s: s.update(rows=np.array(0)), "rows or diameter"),
            (lambda s: s.update(rows=np.array([12])), "rows or diameter"),
            (lambda s: s.update(rows=np.array(12.0)), "rows or diameter"),
            (lambda s: s.update(diameter=np.array(np.nan)), "rows or diameter"),
            (lambda s: s.update(diameter=np.array(-1.0)), "rows or diameter"),
            (lambda s: s.update(diameter=np.array([1.0])), "rows or diameter"),
            (lambda s: s.pop("diameter"), "it has no diameter"),
            (lambda s: s.pop("tree"), "it has no tree"),
        ],
    )
    def test_a_damaged_tree_is_refused(self, tmp_path, change, text):
        folder = self.spoilt(tmp_path, change)
        with pytest.raises(vwkit.ArtifactError, match=text) as caught:
            vwkit.load(folder)
        assert str(caught.value).startswith(f"{folder}: the saved tree is damaged: ")
        assert "\n" not in str(caught.value)

    def test_a_changed_byte_is_refused(self, tmp_path):
        made().fit(rows(20, 12)).save(tmp_path / "saved")
        (file,) = (tmp_path / "saved").glob("tree-*")
        file.write_bytes(file.read_bytes()[:-8] + b"\0" * 7 + b"\x7f")
        with pytest.raises(vwkit.ArtifactError, match="checksum"):
            vwkit.load(tmp_path / "saved")

    def test_parameters_that_cannot_be(self, tmp_path):
        from vwkit.artifact import change_params

        made().fit(rows(21, 12)).save(tmp_path / "saved")
        change_params(tmp_path / "saved", {"height": 1.0})
        with pytest.raises(vwkit.ArtifactError, match="both say where to cut"):
            vwkit.load(tmp_path / "saved")


class TestRun:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))

    def spec(self, folder, **cut):
        path = folder / "x.npy"
        if not path.exists():
            vwkit.write(path, rows(22, 90, 5, "groups"))
        return {
            "vwkit": 1,
            "vectors": {"path": str(path)},
            "clusterer": {"use": "agglomerative", **cut},
            "output": {"write": "labels", "path": str(folder / "labels.npy")},
        }

    def test_another_similarity_repeats_only_the_cut(self, tmp_path, caplog):
        for turn, cut in enumerate(
            ({"similarity": 0.95}, {"similarity": 0.3}, {"clusters": 4}, {"height": 0.5}, {})
        ):
            with caplog.at_level(logging.INFO, "vwkit"):
                caplog.clear()
                run = vwkit.Pipeline.from_dict(self.spec(tmp_path, **cut)).run(
                    tmp_path / f"run{turn}"
                )
            data = vwkit.read(tmp_path / "x.npy").toarray()
            origin = run.manifest["stages"]["clusterer"]["from"]
            assert origin == ("cache" if turn else "computed")
            fresh = made(**cut).fit(data)
            assert (run.clusterer.labels == fresh.labels).all()
            assert (np.load(tmp_path / "labels.npy") == fresh.labels).all()
            assert vwkit.load(tmp_path / f"run{turn}/clusterer").params() == run.clusterer.params()
            assert run.clusterer.params() == {**fresh.params(), "seed": run.clusterer.seed}
            assert fresh.summary() in caplog.text

    def test_another_linkage_is_another_tree(self, tmp_path):
        vwkit.Pipeline.from_dict(self.spec(tmp_path)).run(tmp_path / "run1")
        run = vwkit.Pipeline.from_dict(self.spec(tmp_path, linkage="ward")).run(tmp_path / "run2")
        assert run.manifest["stages"]["clusterer"]["from"] == "computed"

    def test_rows_to_learn_from_are_refused(self, tmp_path):
        spec = self.spec(tmp_path, train_rows=10)
        with pytest.raises(vwkit.SpecError, match="labels only the rows that it is fitted on"):
            vwkit.Pipeline.from_dict(spec)

    def test_it_makes_no_words(self, tmp_path):
        spec = self.spec(tmp_path)
        spec["output"] = {"write": "vocabulary", "path": str(tmp_path / "v")}
        with pytest.raises(vwkit.SpecError, match="agglomerative has no centers to make words of"):
            vwkit.Pipeline.from_dict(spec)

    def test_the_manifest_is_plain(self, tmp_path):
        run = vwkit.Pipeline.from_dict(self.spec(tmp_path)).run(tmp_path / "run")
        text = (run.path("clusterer") / "manifest.json").read_text()
        assert json.loads(text)["params"]["similarity"] == 0.5


def test_no_warning_is_given():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            for linkage, distance in WAYS:
                for method in METHODS:
                    one = made(linkage=linkage, distance=distance, method=method)
                    one.fit(rows(23, 60, 2, kind))
                    assert len(one.labels) == 60


def test_one_row_is_saved_and_loaded(tmp_path: Path) -> None:
    made = vwkit.create("clusterer", "agglomerative").fit(np.ones((1, 4), np.float32))
    made.save(tmp_path / "one")
    again: Any = vwkit.load(tmp_path / "one")
    assert again.labels.tolist() == made.labels.tolist() == [-1]
    again.min_size = 1
    assert again.labels.tolist() == [0]
