"""Late parameters in runs: what was fitted comes from the cache, what is asked for is the spec's."""

import logging

import numpy as np
import pytest

import vwkit
from tests.helpers import blobs, photo_folder, tree, vector_spec
from tests.suite.right_clusterer import Chain, KMeans
from vwkit.artifact import change_params
from vwkit.plugins import registered


@vwkit.backend("few")
class Few(vwkit.Index):
    """Compares with the first vectors only; how many may be said late."""

    metrics = frozenset({"l2"})
    late = frozenset({"looked_at"})

    looked_at: vwkit.Positive = 10

    def _build(self, vectors):
        self._vectors = np.array(vectors)

    def _search(self, queries, k):
        apart = queries[:, None] - self._vectors[None, : self.looked_at]
        table = np.square(apart).sum(axis=2)
        order = np.argsort(table, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(table, order, axis=1).astype(np.float32)


@vwkit.backend("turned")
class Turned(KMeans):
    """Its labels begin somewhere else, as said late."""

    supports_weights = False
    late = frozenset({"by"})

    by: vwkit.Positive = 1

    def _predict(self, data):
        return ((super()._predict(data) + self.by) % self.k).astype(np.int32)


@vwkit.backend("mean-colour")
class MeanColour(vwkit.Featurizer):
    """Red, green and blue on average."""

    dim = 3

    def _extract(self, images):
        return [vwkit.Features(one.rgb.mean(axis=(0, 1))[None].astype("float32")) for one in images]


@pytest.fixture(autouse=True)
def _known():
    with registered(Chain), registered(Few), registered(Turned), registered(MeanColour):
        yield


def origins(run):
    return {name: stage["from"] for name, stage in run.manifest["stages"].items()}


def chain_spec(folder, height, **slots):
    path = folder / "x.npy"
    if not path.exists():
        vwkit.write(path, blobs(60))
    clusterer = {"use": "chain", "height": height}
    return {"vwkit": 1, "vectors": {"path": str(path)}, "clusterer": clusterer, **slots}


def test_only_the_cut_is_done_again(tmp_path):
    output = {"write": "labels", "path": str(tmp_path / "labels.npy")}
    runs = [
        vwkit.Pipeline.from_dict(chain_spec(tmp_path, height, output=output)).run(
            tmp_path / f"run{i}"
        )
        for i, height in enumerate((5.0, 60.0))
    ]
    assert origins(runs[0]) == {"clusterer": "computed"}
    assert origins(runs[1]) == {"clusterer": "cache"}
    rows = vwkit.read(tmp_path / "x.npy").toarray()
    fresh = [Chain(height=height).fit(rows) for height in (5.0, 60.0)]
    assert fresh[0].labels.max() != fresh[1].labels.max()
    assert (np.load(tmp_path / "labels.npy") == fresh[1].labels).all()
    for run, one in zip(runs, fresh, strict=True):
        for found in (run.clusterer, vwkit.load(run.path("clusterer"))):
            assert found.height == one.height
            assert (found.labels == one.labels).all()


def test_a_stage_from_the_cache_has_the_bytes_of_a_computed_one(tmp_path, monkeypatch):
    vwkit.Pipeline.from_dict(chain_spec(tmp_path, 5.0)).run(tmp_path / "first")
    cached = vwkit.Pipeline.from_dict(chain_spec(tmp_path, 60.0)).run(tmp_path / "cached")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "other"))
    computed = vwkit.Pipeline.from_dict(chain_spec(tmp_path, 60.0)).run(tmp_path / "computed")
    assert origins(cached) != origins(computed)
    assert tree(cached.path("clusterer")) == tree(computed.path("clusterer"))


def test_the_same_folder_again(tmp_path):
    for height in (5.0, 60.0, 5.0):
        run = vwkit.Pipeline.from_dict(chain_spec(tmp_path, height)).run(tmp_path / "run")
        assert run.clusterer.height == height


def test_resuming_another_cut_is_refused(tmp_path):
    vwkit.Pipeline.from_dict(chain_spec(tmp_path, 5.0)).run(tmp_path / "run")
    with pytest.raises(vwkit.RunError, match=r"these keys differ: clusterer\.height"):
        vwkit.Pipeline.from_dict(chain_spec(tmp_path, 60.0)).run(tmp_path / "run", resume=True)
    assert vwkit.Run.open(tmp_path / "run").clusterer.height == 5.0


def test_an_index_from_the_cache_is_searched_as_the_spec_says(tmp_path):
    found = {}
    for many in (3, 600):
        spec = vector_spec(tmp_path, index={"use": "few", "looked_at": many})
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / f"run{many}")
        assert run.index.looked_at == many
        found[many] = run.search(blobs()[:50].astype(np.float32), 1).ids
    assert origins(run) == {"index": "cache"}
    assert found[3].max() == 2
    assert found[600].max() > 2
    assert vwkit.load(tmp_path / "run3/index").looked_at == 3


def test_what_is_late_alone_counts_inside_another(tmp_path):
    runs = []
    for many in (5, 600):
        clusterer = {"use": "lloyd", "k": 5, "iterations": 2}
        clusterer["assign"] = {"use": "few", "looked_at": many}
        runs.append(
            vwkit.Pipeline.from_dict(vector_spec(tmp_path, clusterer=clusterer)).run(
                tmp_path / f"run{many}"
            )
        )
    assert origins(runs[1])["clusterer"] == "computed"


def test_words_follow_a_late_parameter(tmp_path):
    labels = []
    for by in (1, 2):
        clusterer = {"use": "turned", "k": 4, "iterations": 3, "train_rows": 100, "by": by}
        run = vwkit.Pipeline.from_dict(vector_spec(tmp_path, clusterer=clusterer)).run(
            tmp_path / f"run{by}"
        )
        labels.append(run.words.words.astype(int))
    assert origins(run) == {"clusterer": "cache", "labels": "computed"}
    assert ((labels[0] + 1) % 4 == labels[1]).all()


def test_parameters_of_a_linked_artifact_change_in_one_place(tmp_path):
    from vwkit.cache import link_tree

    made = Chain(height=2.0).fit(blobs(30))
    made.save(tmp_path / "one")
    link_tree(tmp_path / "one", tmp_path / "two")
    before = tree(tmp_path / "one")
    change_params(tmp_path / "two", {"height": 2.0})
    assert tree(tmp_path / "two") == before
    change_params(tmp_path / "two", {"height": 7.0})
    assert tree(tmp_path / "one") == before
    assert vwkit.load(tmp_path / "one").height == 2.0
    assert vwkit.load(tmp_path / "two").height == 7.0
    with pytest.raises(vwkit.ArtifactError, match="did not|something that vwkit saved"):
        change_params(tmp_path, {"height": 7.0})


class TestItems:
    """Which items are in which cluster."""

    def spec(self, folder, **slots):
        if not (folder / "photos").exists():
            photo_folder(folder / "photos", groups=3, copies=3)
            (folder / "photos/g0/c2.png").unlink()
            (folder / "photos/broken.png").write_bytes(b"no picture")
        return {
            "vwkit": 1,
            "images": {"path": str(folder / "photos")},
            "featurizer": {"use": "mean-colour"},
            "clusterer": {"use": "chain", "height": 5.0},
            **slots,
        }

    @pytest.mark.filterwarnings("ignore::vwkit.errors.SkippedItems")
    def test_clusters_hold_items(self, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "vwkit"):
            run = vwkit.Pipeline.from_dict(self.spec(tmp_path)).run(tmp_path / "run")
        assert [[item.id for item in one.items] for one in run.clusters] == [
            ["g1/c0.png", "g1/c1.png", "g1/c2.png"],
            ["g2/c0.png", "g2/c1.png", "g2/c2.png"],
            ["g0/c0.png", "g0/c1.png"],
        ]
        assert run.unclustered == []
        for one in run.clusters:
            for item in one.items:
                assert run.item_labels[run.kept.index(item)] == one.number
        assert "#images : #clusters\n2 : 1\n3 : 2\n#images in clusters: 8 of 8" in caplog.text

    @pytest.mark.filterwarnings("ignore::vwkit.errors.SkippedItems")
    def test_items_in_no_cluster_stand_apart(self, tmp_path):
        spec = self.spec(tmp_path)
        (tmp_path / "photos/g0/c1.png").unlink()
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        assert [item.id for item in run.unclustered] == ["g0/c0.png"]
        assert [len(one.items) for one in run.clusters] == [3, 3]

    def test_rows_are_no_items(self, tmp_path):
        run = vwkit.Pipeline.from_dict(chain_spec(tmp_path, 5.0)).run(tmp_path / "run")
        with pytest.raises(vwkit.UnsupportedError, match="60 labels are not of 1 items"):
            run.clusters  # noqa: B018

    def test_no_clusterer(self, tmp_path):
        run = vwkit.Pipeline.from_dict(vector_spec(tmp_path, index={"use": "exact"})).run(
            tmp_path / "run"
        )
        with pytest.raises(vwkit.UnsupportedError, match="needs a clusterer"):
            run.unclustered  # noqa: B018
