"""Spatial verification: the reranker, and what a run asks of rerankers."""

import json

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import vwkit
from tests.helpers import bag_spec, dump, photo_folder
from vwkit.around import Reranker
from vwkit.cli.main import cli
from vwkit.testing import registered

SIZE = (400, 300)


def features(seed, count=60):
    rng = np.random.default_rng(seed)
    points = np.zeros((count, 5), np.float32)
    points[:, :2] = rng.uniform(0, 1, (count, 2)) * SIZE
    points[:, 2] = rng.uniform(3, 12, count)
    points[:, 3] = rng.uniform(0, 360, count)
    return vwkit.Features(rng.integers(0, 256, (count, 32)).astype(np.uint8), points, SIZE)


def part_of(one, count):
    """A picture that shares so many places with `one`; the others are its own."""
    other = features(99 + count)
    vectors, points = other.vectors.copy(), other.keypoints.copy()
    vectors[:count], points[:count] = one.vectors[:count], one.keypoints[:count]
    return vwkit.Features(vectors, points, SIZE)


def matches(ids):
    ids = np.array([ids], np.int64)
    distances = np.where(ids < 0, np.inf, np.arange(ids.shape[1]) / 10).astype(np.float32)
    return vwkit.Matches(ids, distances)


def test_more_places_come_first():
    query = features(0)
    shared = {10: 0, 11: 20, 12: 3, 13: 40, 14: 20, 15: 60}
    pictures = {row: part_of(query, count) for row, count in shared.items()}
    affine = vwkit.create("reranker", "affine")
    found = affine._rerank(query, matches([10, 11, 12, 13, 14, 15, -1]), pictures.__getitem__)
    # Equal ones in the order they had; so few that it is chance count as none.
    assert found.ids.tolist() == [[15, 13, 11, 14, 10, 12, -1]]
    np.testing.assert_allclose(found.distances[0], [0.5, 0.3, 0.1, 0.4, 0.0, 0.2, np.inf])


def test_only_the_first_ones_are_looked_at():
    query = features(0)
    pictures = {1: features(1), 2: part_of(query, 30)}
    affine = vwkit.create("reranker", "affine", top=3)
    found = affine._rerank(query, matches([1, 1, 2, 2, 7]), pictures.__getitem__)
    assert found.ids.tolist() == [[2, 1, 1, 2, 7]]


def test_an_affine_map_is_more_than_a_similarity():
    query = features(0)
    wide = query.keypoints.copy()
    wide[:, 0] *= 1.6
    other = vwkit.Features(query.vectors, wide, (640, 300))
    by = {}
    for model in ("affine", "similarity"):
        affine = vwkit.create("reranker", "affine", model=model)
        (by[model],) = vwkit.geometry.align_many(
            query, [other], model=affine.model, tolerance=affine.tolerance
        )
    assert by["affine"].inliers > 2 * by["similarity"].inliers


def test_nothing_to_compare():
    affine = vwkit.create("reranker", "affine")
    empty = vwkit.Features(np.zeros((0, 32), np.uint8), np.zeros((0, 5), np.float32), (1, 1))
    kept = matches([1, 2])
    assert affine._rerank(empty, kept, lambda row: features(row)).ids.tolist() == [[1, 2]]
    nothing = matches([-1, -1])
    assert affine._rerank(features(0), nothing, lambda row: features(row)).ids.tolist() == [
        [-1, -1]
    ]
    bare = vwkit.Features(features(0).vectors, None, SIZE)
    with pytest.raises(vwkit.DataError, match="these features have none; take a local featurizer"):
        affine._rerank(bare, kept, lambda row: features(row))


# In a run ----------------------------------------------------------------------------------------


@vwkit.backend("last-first")
class LastFirst(Reranker):
    """Brings the last one that it gets to the front."""

    def _rerank(self, query, matches, features):
        seen = matches.ids[:, : self.top]
        last = int((seen[0] >= 0).sum()) - 1
        order = [last, *(i for i in range(matches.ids.shape[1]) if i != last)]
        return vwkit.Matches(matches.ids[:, order], matches.distances[:, order])


def test_what_is_far_behind_can_come_to_the_front(tmp_path):
    photo_folder(tmp_path / "photos", groups=4)
    with registered(LastFirst):
        runs = {}
        for top in (5, 200):
            spec = bag_spec(tmp_path / "photos", index={"use": "exact", "metric": "cosine"},
                            rerank={"use": "last-first", "top": top})  # fmt: skip
            runs[top] = vwkit.Pipeline.from_dict(spec).run(tmp_path / str(top))
        order = runs[5].nearest(runs[5].query_vectors("g0/c0.png"), 8).ids[0]
        for query in ("g0/c0.png", tmp_path / "photos/g0/c0.png"):
            for top, front in ((5, order[4]), (200, order[7])):
                found = runs[top].search(query, 2)
                assert found.ids.tolist() == [[front, order[0]]]
                assert found.distances.shape == (1, 2)


def test_an_image_is_looked_at_once(tmp_path):
    photo_folder(tmp_path / "photos")
    seen = []

    @vwkit.backend("counting")
    class Counting(vwkit.Featurizer):
        """The pixels of an image, which notes that it was looked at."""

        local = True
        dim = 3

        def _extract(self, images):
            seen.extend(image.source for image in images)
            return [vwkit.Features(i.rgb.reshape(-1, 3).astype(np.float32)) for i in images]

    with registered(Counting), registered(LastFirst):
        spec = bag_spec(tmp_path / "photos", rerank=[{"use": "last-first"}])
        spec["featurizer"]["local"] = {"use": "counting"}
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        seen.clear()
        run.search(tmp_path / "photos/g0/c0.png", 2)
        assert len(seen) == 1


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Four places, three times each."""
    pytest.importorskip("vwkit_opencv")
    from tests.test_docs import script

    folder = tmp_path_factory.mktemp("places")
    script("make_data").make(folder)
    return folder


def test_photographs_of_one_place_come_first(places, monkeypatch, tmp_path):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
    spec = {
        "vwkit": 1,
        "images": {"path": str(places / "photos")},
        "featurizer": {
            "use": "bag-of-words",
            "local": {"use": "sift", "max_keypoints": 300},
            # So few words tell little; where they lie tells more.
            "vocabulary": {"use": "lloyd", "k": 6, "iterations": 2},
            "weighting": "tf",
        },
        "index": {"use": "inverted"},
        "evaluate": {
            "protocol": "groups",
            "groundtruth": str(places / "groups.csv"),
            "exclude_query": True,
        },
    }
    plain = vwkit.Pipeline.from_dict(spec).run(tmp_path / "plain")
    path = dump(tmp_path / "spec.yaml", {**spec, "rerank": [{"use": "affine", "top": 200}]})
    run = vwkit.Pipeline.from_file(path).run(tmp_path / "run")
    assert 0.2 < plain.scores["mAP"] < 0.9
    assert run.scores["mAP"] == 1
    found = run.search(places / "photos/castle_left.jpg", 3)
    assert {item.id for item in found.items[0]} == {
        f"castle_{view}.jpg" for view in ("far", "left", "right")
    }
    # As the command scores a run that is finished.
    done = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["mAP"] == 1
    # The same for any number of threads.
    ids = [item.id for item in run.kept]
    said = []
    for threads in (1, 3):
        with vwkit.use_job(vwkit.Job(threads=threads)):
            said.append(run.search(ids, 12))
    assert said[0].ids.tolist() == said[1].ids.tolist()


def test_a_spec_without_local_features_is_refused(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos")},
        "featurizer": {"use": "colour-histogram"},
        "index": {"use": "exact"},
        "rerank": [{"use": "affine"}],
    }
    with pytest.raises(vwkit.SpecError, match=r"rerank\[0\]: affine needs a local featurizer"):
        vwkit.Pipeline.from_dict(spec)
    with pytest.raises(vwkit.SpecError, match=r"rerank: affine needs a local featurizer"):
        vwkit.Pipeline.from_dict({**spec, "rerank": {"use": "affine"}})
    with pytest.raises(vwkit.SpecError) as caught:
        vwkit.Pipeline.from_dict({**spec, "featurizer": {"use": "colour-histogramm"}})
    assert "rerank" not in str(caught.value)


def test_features_without_keypoints_are_told_in_one_line(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = bag_spec(tmp_path / "photos", rerank={"use": "affine"})
    with pytest.raises(vwkit.DataError) as caught:
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert str(caught.value) == (
        "affine compares pictures by keypoints, and pixels gives none; "
        "take a local featurizer that does, such as sift"
    )


def test_a_picture_without_keypoints_stays_where_it_is(places, tmp_path, monkeypatch):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("castle_far.jpg", "castle_left.jpg", "market_far.jpg"):
        (folder / name).write_bytes((places / "photos" / name).read_bytes())
    PIL.Image.new("L", (30, 20)).save(folder / "black.png")
    spec = bag_spec(folder, rerank={"use": "affine"}, index={"use": "exact", "metric": "cosine"})
    spec["featurizer"]["local"] = {"use": "sift", "max_keypoints": 200}
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    found = [item.id for item in run.search("castle_far.jpg", 4).items[0]]
    assert found[:2] == ["castle_far.jpg", "castle_left.jpg"]
    assert sorted(found) == sorted(item.id for item in run.kept)
    assert run.search("black.png", 4).ids.shape == (1, 4)
