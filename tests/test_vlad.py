"""VLAD against the reference, alone and in a pipeline."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from tests.helpers import bag_spec, photo_folder
from vwkit import reference
from vwkit.builtin import image_work
from vwkit.builtin.image_work import image_spans

IMAGES = tuple(np.random.default_rng(5).integers(0, 256, (6, 5, 4, 3), np.uint8))


def make(**params):
    slots = {"local": {"use": "pixels"}, "vocabulary": {"use": "lloyd", "k": 9}}
    return vwkit.create("featurizer", "vlad", **{**slots, **params})


def fitted_to(centers, **params):
    """Return a fitted vlad with these centers."""
    centers = np.asarray(centers, np.float32)
    other = np.arange(centers.size, dtype=np.float32).reshape(centers.shape)
    lloyd = vwkit.create("clusterer", "lloyd", k=len(centers)).fit(other)
    lloyd.centers = centers  # in the order of the test, and they may be equal
    made = make(vocabulary=lloyd, **params)
    made.learn(np.zeros(0, np.int64), np.zeros(1, np.int64))
    return made


@given(
    seed=st.integers(0, 9999),
    counts=st.lists(st.integers(0, 7), max_size=6),
    k=st.integers(1, 5),
    d=st.integers(1, 6),
    dtype=st.sampled_from(["uint8", "float32"]),
    ssr=st.booleans(),
    intra=st.booleans(),
    l2=st.booleans(),
)
@settings(deadline=None)
def test_against_the_reference(seed, counts, k, d, dtype, ssr, intra, l2):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    vectors = rng.integers(0, 256, (offsets[-1], d)).astype(dtype)
    centers = rng.integers(0, 4, (k, d)) * 64.0
    if dtype == "float32":
        vectors = (vectors / 37).astype(np.float32)
    if seed % 3 == 0:  # some descriptors are centers: residuals that are nothing
        vectors[::2] = centers[rng.integers(0, k, len(vectors[::2]))]
    words = rng.integers(0, k, len(vectors))
    found = list(fitted_to(centers, ssr=ssr, intra=intra, l2=l2).aggregate(words, offsets, vectors))
    cut = offsets[1:-1]
    expected = reference.vlad.vlad(
        np.split(vectors, cut) if counts else [],
        np.split(words, cut) if counts else [],
        centers,
        ssr=ssr, intra=intra, l2=l2,
    )  # fmt: skip
    assert all(part.dtype == np.float32 for part in found)
    together = np.concatenate([np.zeros((0, k * d), np.float32), *found])
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-6 * max(1, l2 or 1e3))


def test_by_hand():
    made = fitted_to([[0, 0], [10, 10]], intra=False, l2=False)
    vectors = np.array([[1, 2], [11, 8], [3, 0], [10, 10]], np.uint8)
    (found,) = made.aggregate(np.array([0, 1, 0, 1]), np.array([0, 3, 4, 4]), vectors)
    # 1 + 3 and 2 + 0; 11 - 10 and 8 - 10; a descriptor at its center; an image without any.
    assert found.tolist() == [[4, 2, 1, -2], [0, 0, 0, 0], [0, 0, 0, 0]]
    rooted = fitted_to([[0, 0], [10, 10]], ssr=True, intra=False, l2=False)
    (found,) = rooted.aggregate(np.array([0, 1, 0, 1]), np.array([0, 3, 4, 4]), vectors)
    np.testing.assert_allclose(found[0], [2, 2**0.5, 1, -(2**0.5)], rtol=1e-6)


def test_each_part_counts_alike():
    made = fitted_to([[0, 0], [10, 10]])
    burst = np.array([[3, 4]] * 50 + [[11, 10]], np.uint8)
    (found,) = made.aggregate(np.array([0] * 50 + [1]), np.array([0, 51]), burst)
    np.testing.assert_allclose(found[0], np.array([0.6, 0.8, 1, 0]) / 2**0.5, rtol=1e-6)


@pytest.mark.parametrize("space", ["rgb", "oklab"])
def test_from_images(space, tmp_path):
    local = {"use": "pixels", "space": space}
    made = make(local=local).fit(IMAGES[:4])
    descriptors = list(vwkit.create("featurizer", "pixels", space=space).extract(IMAGES))
    words = [made.words.encode(one)[:, 0] for one in descriptors]
    expected = reference.vlad.vlad(descriptors, words, made.words.codebook[0])
    found = made.vectors(IMAGES)
    assert found.shape == (6, made.dim) == (6, 27)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    made.save(tmp_path / "a")
    again = vwkit.load(tmp_path / "a")
    assert np.array_equal(again.vectors(IMAGES), found)
    refitted = again.fit(IMAGES[2:])
    assert np.array_equal(
        refitted.vectors(IMAGES), make(local=local).fit(IMAGES[2:]).vectors(IMAGES)
    )


@given(counts=st.lists(st.integers(0, 9), max_size=12), most=st.integers(1, 9))
def test_spans_cover_every_image_once(counts, most):
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_work, "_DESCRIPTORS_AT_ONCE", most)
        spans = list(image_spans(offsets))
    assert [place for first, last in spans for place in range(first, last)] == list(
        range(len(counts))
    )
    for first, last in spans:
        assert last == first + 1 or offsets[last] - offsets[first] <= most


def test_blocks_do_not_change_a_byte(monkeypatch):
    made = make(local={"use": "pixels", "space": "oklab"}).fit(IMAGES)
    descriptors = np.concatenate(list(made.local_.extract(IMAGES)))
    words = made.words.encode(descriptors)[:, 0]
    offsets = np.arange(0, 121, 20)
    whole = np.concatenate(list(made.aggregate(words, offsets, descriptors)))
    monkeypatch.setattr(image_work, "_DESCRIPTORS_AT_ONCE", 30)
    parts = list(made.aggregate(words, offsets, descriptors))
    assert len(parts) == 6
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(made.vectors(IMAGES), whole)


def test_what_does_not_fit():
    with pytest.raises(vwkit.ParameterError, match=r"vlad\.local: fvecs reads files"):
        make(local={"use": "fvecs"})
    with pytest.raises(vwkit.ParameterError, match=r"vlad\.local: a local featurizer"):
        make(local=make())
    with pytest.raises(vwkit.ParameterError, match="vocabulary: one word per descriptor"):
        make(vocabulary={"use": "pq", "m": 3, "ks": 4}).fit(IMAGES)
    with pytest.raises(vwkit.NotFittedError):
        list(make().aggregate(np.zeros(1, int), np.array([0, 1]), np.zeros((1, 3))))
    with pytest.raises(vwkit.DataError, match="vlad needs the descriptors"):
        list(make().fit(IMAGES).aggregate(np.zeros(1, int), np.array([0, 1])))


# In a pipeline -----------------------------------------------------------------------------------


def vlad_spec(folder, **slots):
    vocabulary = {"use": "lloyd", "k": 6, "iterations": 3}
    featurizer = {"use": "vlad", "local": {"use": "pixels"}, "vocabulary": vocabulary}
    return bag_spec(folder, **{"featurizer": featurizer, "index": {"use": "exact"}, **slots})


def test_a_run_of_vlad(tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/torn.png").write_bytes(b"not a picture")
    with pytest.warns(vwkit.SkippedItems):
        run = vwkit.Pipeline.from_dict(vlad_spec(tmp_path / "photos")).run(tmp_path / "run")
    stages = ["featurizer.local", "featurizer.vocabulary", "featurizer.words", "featurizer"]
    assert list(run.manifest["stages"]) == [*stages, "vectors", "index"]
    assert run.manifest["counts"]["words"] == 6
    paths = [item.path for item in run.kept]
    assert run.vectors.shape == (6, 18)
    # Stage by stage or image by image: the same bytes.
    assert np.array_equal(run.featurizer.vectors(paths), run.vectors)
    for query in (run.kept[0].id, paths[0]):
        matches = run.search(query, 2)
        assert [item.id for item in matches.items[0]] == ["g0/c0.png", "g0/c1.png"]
        assert matches.distances[0, 0] == 0


def test_only_what_changed_is_made_again(tmp_path):
    photo_folder(tmp_path / "photos")
    vwkit.Pipeline.from_dict(vlad_spec(tmp_path / "photos")).run(tmp_path / "run")
    spec = vlad_spec(tmp_path / "photos")
    spec["featurizer"]["intra"] = False
    again = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    made = {name for name, one in again.manifest["stages"].items() if one["from"] == "computed"}
    assert made == {"featurizer", "vectors", "index"}


def test_a_saved_vocabulary_is_used(tmp_path):
    photo_folder(tmp_path / "photos")
    first = vwkit.Pipeline.from_dict(vlad_spec(tmp_path / "photos")).run(tmp_path / "run")
    first.vocabulary.save(tmp_path / "words")
    spec = vlad_spec(tmp_path / "photos")
    spec["featurizer"]["vocabulary"] = str(tmp_path / "words")
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "again")
    assert "featurizer.vocabulary" not in run.manifest["stages"]
    assert np.array_equal(run.vectors, first.vectors)


def test_images_without_keypoints_are_zero_and_stay_in_order(tmp_path):
    pytest.importorskip("vwkit_opencv")
    photo_folder(tmp_path / "photos")
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "photos/g1/black.png")
    PIL.Image.new("L", (1, 1)).save(tmp_path / "photos/g1/dot.png")
    spec = vlad_spec(tmp_path / "photos", index={"use": "exact", "metric": "cosine"})
    spec["featurizer"] = {
        "use": "vlad",
        "local": {"use": "sift", "contrastThreshold": 0.01},
        "vocabulary": {"use": "lloyd", "k": 4},
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    zero = [item.id for item, row in zip(run.kept, run.vectors, strict=True) if not row.any()]
    assert zero == ["g1/black.png", "g1/dot.png"]
    lengths = np.linalg.norm(run.vectors, axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-6)
    assert run.search("g1/c0.png", 1).items[0][0].id == "g1/c0.png"
