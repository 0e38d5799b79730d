"""Comparing pictures by keypoints: matching, fitting, and what is said of the result."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import Features, Job, geometry, use_job
from vwkit.geometry import Transformation, comparing, fitting
from vwkit.geometry.comparing import copy_of
from vwkit.geometry.transformation import clipped_area, corners, inverse
from vwkit.reference import geometry as reference

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def keypoints(rng, count, size=(400, 300)):
    """Keypoints all over a picture."""
    points = np.zeros((count, 5))
    points[:, :2] = rng.uniform(0, 1, (count, 2)) * size
    points[:, 2] = rng.uniform(3, 12, count)
    points[:, 3] = rng.uniform(0, 360, count)
    points[:, 4] = rng.uniform(0, 1, count)
    return points


def similarity(scale, degrees, x=0.0, y=0.0):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, x], [s, c, y]])


def moved(points, matrix):
    """Keypoints of the picture after a similarity."""
    out = points.copy()
    out[:, :2] = geometry.apply(matrix, points[:, :2])
    out[:, 2] *= np.hypot(matrix[0, 0], matrix[1, 0])
    out[:, 3] = (out[:, 3] + np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))) % 360
    return out


# Matching ----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 9999),
    n=st.integers(0, 12),
    m=st.integers(0, 12),
    d=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "float32", "float64"]),
    ratio=st.sampled_from([0.5, 0.8, 1.0]),
)
@settings(deadline=None)
def test_matches_are_those_of_the_reference(seed, n, m, d, dtype, ratio):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 40, (count, d)).astype(dtype) for count in (n, m))
    for row in range(0, min(n, m), 2):
        b[row] = a[row]
    if dtype != "uint8":
        a, b = a * dtype_scale(dtype), b * dtype_scale(dtype)
    found = geometry.match_descriptors(a, b, ratio=ratio)
    assert found.dtype == np.int64
    assert [tuple(pair) for pair in found.tolist()] == reference.match(a, b, ratio)


def dtype_scale(dtype):
    return np.dtype(dtype).type(2.0**-9 if dtype == "float32" else 2.0**70)


def test_matches_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 128)).astype(np.float32)
    b = a[rng.permutation(40)] + rng.normal(size=(40, 128)).astype(np.float32) / 9
    whole = geometry.match_descriptors(a, b)
    monkeypatch.setattr("vwkit.geometry.matching._CELLS", 100)
    assert (geometry.match_descriptors(a, b) == whole).all()
    assert len(whole) == 40


def test_descriptors_that_do_not_fit():
    with pytest.raises(vwkit.ShapeError, match=r"same d; got \(2, 3\), \(2, 4\)"):
        geometry.match_descriptors(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(vwkit.DataError, match="NaN"):
        geometry.match_descriptors(np.full((2, 3), np.nan), np.zeros((2, 3)))


# Fitting -----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 9999), count=st.integers(1, 8))
def test_a_hypothesis_takes_one_keypoint_to_the_other(seed, count):
    rng = np.random.default_rng(seed)
    a, b = keypoints(rng, count), keypoints(rng, count)
    c, t = fitting.hypotheses(a, b)
    for i in range(count):
        matrix = np.array([[c[i].real, -c[i].imag, t[i].real], [c[i].imag, c[i].real, t[i].imag]])
        np.testing.assert_allclose(matrix, reference.similarity(a[i], b[i]), atol=1e-9)


@given(seed=st.integers(0, 9999), count=st.integers(1, 9), tolerance=st.floats(1, 200))
@settings(deadline=None)
def test_scores_are_those_of_the_reference(seed, count, tolerance):
    rng = np.random.default_rng(seed)
    a = keypoints(rng, count)
    b = moved(a, similarity(rng.uniform(0.3, 3), rng.uniform(-180, 180), 5, 9))
    b[:, :2] += rng.normal(0, 30, (count, 2))
    b[:, 2] *= rng.uniform(0.4, 2.5, count)
    b[:, 3] += rng.uniform(-60, 60, count)
    c, t = fitting.hypotheses(a, b)
    found = fitting.score(a, b, c, t, np.full(count, tolerance))
    for i in range(count):
        matrix = reference.similarity(a[i], b[i])
        for j in range(count):
            assert found[i, j] == reference.agrees(matrix, a[j], b[j], tolerance)


@given(seed=st.integers(0, 9999), count=st.integers(4, 12))
def test_the_affine_fit_is_that_of_the_reference(seed, count):
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 100, (count, 2))
    linear = np.eye(2) + rng.uniform(-0.2, 0.2, (2, 2))
    b = a @ linear.T + rng.normal(0, 1, (count, 2))
    expected = reference.affine(a, b)
    found = fitting.fit_affine(a, b)
    assume(found is not None)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_fits_that_are_not_determined():
    line = np.column_stack([np.arange(6.0), 2 * np.arange(6.0)])
    assert fitting.fit_affine(line, line) is None
    square = corners((10, 10))
    assert fitting.fit_affine(square, square * [-1, 1]) is None  # turned over
    assert fitting.fit_affine(square, square * [10, 1]) is None  # stretched out of all proportion
    assert fitting.fit_affine(square[:3], square[:3]) is None
    assert fitting.fit_similarity(square[:1], square[:1]) is None
    assert fitting.fit_similarity(square[[0, 0]], square[:2]) is None
    np.testing.assert_allclose(fitting.fit_affine(square, square * [2, 1]), [[2, 0, 0], [0, 1, 0]],
                               atol=1e-12)  # fmt: skip


@given(
    seed=st.integers(0, 9999),
    scale=st.floats(0.25, 3),
    degrees=st.floats(-180, 180),
    outliers=st.integers(0, 40),
    model=st.sampled_from(["similarity", "affine"]),
    bare=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_what_most_agree_on_is_found(seed, scale, degrees, outliers, model, bare):
    rng = np.random.default_rng(seed)
    true = similarity(scale, degrees, 20, -30)
    a = keypoints(rng, 25)
    b = moved(a, true)
    b[:, :2] += rng.normal(0, 0.3, (25, 2))
    b[:, 2] *= np.exp(rng.normal(0, 0.05, 25))
    b[:, 3] += rng.normal(0, 3, 25)
    other = keypoints(rng, outliers), keypoints(rng, outliers, (900, 900))
    a, b = np.concatenate([a, other[0]]), np.concatenate([b, other[1]])
    if bare:  # keypoints without scale and direction; pairs of them are the hypotheses
        a[:, 2:4] = b[:, 2:4] = 0
        assume(outliers <= 8)
    found = geometry.estimate(a, b, lambda s: np.full(len(s), 3.0), model=model)
    assert found is not None
    matrix, agrees = found
    assert agrees[:25].mean() > 0.9
    assert agrees[25:].sum() <= 3
    places = corners((400, 300))
    off = geometry.apply(matrix, places) - geometry.apply(true, places)
    assert np.abs(off).max() < 3


def test_what_nothing_agrees_on():
    rng = np.random.default_rng(0)
    nothing = geometry.estimate(keypoints(rng, 2), keypoints(rng, 2), lambda s: 0 * s + 2)
    assert nothing is None
    found = geometry.estimate(keypoints(rng, 30), keypoints(rng, 30), lambda s: 0 * s + 2)
    assert found is None or found[1].sum() < 6
    one = np.tile(keypoints(rng, 1), (9, 1))  # all in one place
    found = geometry.estimate(one, one, lambda s: 0 * s + 2)
    assert found is None or found[1].sum() == 9


# What it says ------------------------------------------------------------------------------------


def made(matrix, size=(400, 300), other=(400, 300)):
    return Transformation(np.asarray(matrix, float), size, other, 50, 60, 0.8)


@pytest.mark.parametrize(
    ("words", "matrix", "other"),
    [
        ("copy", IDENTITY, (400, 300)),
        ("scaled 0.5×", similarity(0.5, 0, -0.25, -0.25), (200, 150)),
        ("scaled 2×", similarity(2, 0, 0.5, 0.5), (800, 600)),
        ("scaled 1.05×", similarity(1.05, 0), (420, 315)),
        ("rotated 90° clockwise", similarity(1, 90, 299, 0), (300, 400)),
        ("rotated 90° counter-clockwise", similarity(1, -90, 0, 399), (300, 400)),
        ("rotated 180°", similarity(1, 180, 399, 299), (400, 300)),
        ("mirrored", [[-1, 0, 399], [0, 1, 0]], (400, 300)),
        ("mirrored top to bottom", [[1, 0, 0], [0, -1, 299]], (400, 300)),
        ("mirrored, rotated 90° clockwise", [[0, -1, 299], [-1, 0, 399]], (300, 400)),
        ("crop (keeps 50 %)", [[1, 0, -100], [0, 1, 0]], (200, 300)),
        ("crop (keeps 5 %)", [[1, 0, -100], [0, 1, 0]], (20, 300)),
        ("rotated 180°, crop (keeps 50 %)", [[-1, 0, 299], [0, -1, 299]], (200, 300)),
        ("part of a larger picture (fills 25 %)", [[1, 0, 50], [0, 1, 50]], (800, 600)),
        ("overlap (50 % of it, 50 % of the other)", [[1, 0, -200], [0, 1, 0]], (400, 300)),
        ("width 1.2×, height 1×", [[1.25, 0, 0.1], [0, 1, 0]], (500, 300)),
        ("width 0.5×, height 2×", [[0.5, 0, -0.25], [0, 2, 0.5]], (200, 600)),
        ("stretched 1.5×", None, None),
    ],
)
def test_words(words, matrix, other):
    if matrix is None:  # along a diagonal
        turn = similarity(1, 45)[:, :2]
        matrix = np.column_stack([turn @ np.diag([1.5**0.5, 1.5**-0.5]) @ turn.T, [0, 0]])
        assert words in made(matrix).words
        return
    assert made(matrix, other=other).words == words


def test_a_turned_picture_has_empty_corners_and_nothing_besides():
    turned = similarity(1, -25)
    box = geometry.apply(turned, corners((400, 300)))
    low, high = box.min(axis=0), box.max(axis=0)
    size = tuple(np.ceil(high - low).astype(int).tolist())
    turned[:, 2] -= low
    assert made(turned, other=size).words == "rotated 25° counter-clockwise"


@given(
    seed=st.integers(0, 9999),
    scale=st.floats(0.3, 3),
    degrees=st.floats(-180, 180),
    mirrored=st.booleans(),
)
@settings(deadline=None, max_examples=15)
def test_areas_and_the_way_back(seed, scale, degrees, mirrored):
    rng = np.random.default_rng(seed)
    matrix = similarity(scale, degrees, *rng.uniform(-150, 150, 2))
    if mirrored:
        matrix[:, 0] *= -1
    one = made(matrix, (120, 90), (100, 140))
    assert one.kept == pytest.approx(
        reference.shared_area(matrix, (120, 90), (100, 140), 60), abs=0.03
    )
    back = one.inverse
    assert one.covered == pytest.approx(back.kept, abs=1e-9)
    assert back.scale == pytest.approx(1 / scale)
    assert one.mirrored == back.mirrored == mirrored
    np.testing.assert_allclose(back.inverse.matrix, matrix, atol=1e-9)
    np.testing.assert_allclose(
        geometry.apply(back.matrix, one.outline), corners((120, 90)), atol=1e-6
    )
    turn = one.angle - degrees if not mirrored else one.angle + 180 - degrees
    if mirrored:  # mirrored first, then turned: x → −x, then the rotation
        turn = one.angle - degrees
    assert abs((turn + 180) % 360 - 180) < 1e-6


def test_areas_that_do_not_meet():
    assert clipped_area(corners((10, 10)) + 50, (20, 20)) == 0
    assert clipped_area(corners((10, 10)), (20, 20)) == 100
    assert clipped_area(corners((10, 10))[::-1] + np.array([15, 0]), (20, 20)) == 50
    np.testing.assert_allclose(inverse(IDENTITY), IDENTITY)


# Comparing ---------------------------------------------------------------------------------------


def picture(seed=0, count=80, size=(400, 300)):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 256, (count, 64)).astype(np.uint8)
    return Features(vectors, keypoints(rng, count, size).astype(np.float32), size)


def copied(features, matrix, size, *, seed=1):
    """The features of a copy: other noise, another order, and what lies outside is gone."""
    rng = np.random.default_rng(seed)
    points = moved(features.keypoints.astype(np.float64), np.asarray(matrix, float))
    inside = ((points[:, :2] >= 0) & (points[:, :2] < size)).all(axis=1)
    order = rng.permutation(np.flatnonzero(inside))
    noise = rng.integers(-9, 10, features.vectors.shape)
    vectors = np.clip(features.vectors.astype(int) + noise, 0, 255).astype(np.uint8)
    return Features(vectors[order], points[order].astype(np.float32), size)


def test_a_copy_is_told_from_another_picture():
    one = picture()
    half = copied(one, similarity(0.5, 0), (200, 150))
    found = geometry.compare(one, half)
    assert found.words == "scaled 0.5×"
    assert found.inliers > 70
    assert found.share > 0.9
    assert geometry.compare(half, one).words == "scaled 2×"
    assert geometry.compare(one, picture(7)) is None
    assert geometry.compare(one, half, inliers=1000) is None
    assert geometry.compare(one, copied(one, [[1, 0, -300], [0, 1, 0]], (400, 300)), inliers=5,
                            overlap=0.5) is None  # fmt: skip


def test_mirrored_copies():
    one = picture()
    mirrored = Features(one.vectors[::-1], one.keypoints[::-1].copy(), one.size)
    mirrored.keypoints[:, 0] = 399 - mirrored.keypoints[:, 0]
    mirrored.keypoints[:, 3] = 180 - mirrored.keypoints[:, 3]
    mirrored.vectors.setflags(write=False)
    other = copied(mirrored, similarity(1, 90, 299, 0), (300, 400))
    assert geometry.compare(one, Features(255 - other.vectors, other.keypoints, other.size)) is None
    found = geometry.compare(picture(5), other, mirrored=mirrored)
    assert found.words == "mirrored, rotated 90° clockwise"
    np.testing.assert_allclose(
        geometry.apply(found.matrix, [[0, 0], [399, 0]]), [[299, 399], [299, 0]], atol=1
    )


def test_places_are_counted_not_keypoints():
    one = picture()
    twice = Features(
        np.concatenate([one.vectors, 255 - one.vectors]),
        np.concatenate([one.keypoints, one.keypoints]),
        one.size,
    )
    found = geometry.align(twice, twice)
    assert found.matches == 160
    assert found.inliers <= 80
    assert found.share == pytest.approx(1)


def test_only_the_strongest_are_compared():
    one = picture()
    found = geometry.align(one, one, keypoints=20)
    assert found.matches == 20
    assert geometry.align(one, one, keypoints=80).matches == 80


def test_threads_change_nothing():
    one = picture()
    others = [copied(one, similarity(1, 5 * i, 60), (500, 400), seed=i) for i in range(8)]
    others += [picture(i) for i in (7, 8, 9)]
    said = []
    for threads in (1, 3):
        with use_job(Job(threads=threads)):
            said.append(list(geometry.align_many(one, iter(others))))
    for left, right in zip(*said, strict=True):
        assert (left is None) == (right is None)
        assert left is None or left.matrix.tobytes() == right.matrix.tobytes()
    assert sum(one is not None and one.inliers > 30 for one in said[0]) == 8


def test_a_first_look_changes_no_answer(monkeypatch):
    one = picture(count=300)
    others = [copied(one, similarity(1, 40, 60), (500, 500)), picture(7, 300), picture(8, 300)]
    monkeypatch.setattr(comparing, "_FIRST", 60)
    whole, quick = (
        [copy_of(found) for found in geometry.align_many(one, others, quick=quick)]
        for quick in (False, True)
    )
    assert [found is None for found in whole] == [False, True, True]
    assert [found is None for found in quick] == [False, True, True]
    assert whole[0].matrix.tobytes() == quick[0].matrix.tobytes()
    looks = []
    real = comparing.align
    monkeypatch.setattr(comparing, "align", lambda a, b, **k: looks.append(b) or real(a, b, **k))
    list(geometry.align_many(one, others, quick=True))
    counts = [len(features.keypoints) for features in looks]
    assert counts.count(60) == 3
    assert len(others[0].keypoints) in counts
    assert len(counts) < 6


def test_features_that_cannot_be_compared():
    one = picture()
    for bare in (Features(one.vectors, None, one.size), Features(one.vectors, one.keypoints)):
        with pytest.raises(vwkit.DataError, match="compared by keypoints"):
            geometry.compare(one, bare)
    empty = Features(one.vectors[:0], one.keypoints[:0], (1, 1))
    assert geometry.compare(one, empty) is None
    assert geometry.compare(empty, empty) is None
    assert geometry.compare(Features(one.vectors[:1], one.keypoints[:1], (1, 1)), one) is None


# With real keypoints -----------------------------------------------------------------------------


def scene():
    from tests.test_docs import script

    return script("make_data").scene(3, 300, 400)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("copy", lambda image: image),
        ("crop (keeps 49 %)", lambda image: image.crop((40, 60, 320, 270))),
        ("scaled 0.5×", lambda image: image.resize((200, 150))),
        ("scaled 2×", lambda image: image.resize((800, 600))),
        ("rotated 90° clockwise", lambda image: image.rotate(-90, expand=True)),
        ("rotated 30° counter-clockwise", lambda image: image.rotate(30, expand=True)),
        ("mirrored", lambda image: image.transpose(0)),
        ("mirrored top to bottom", lambda image: image.transpose(1)),
        ("width 1.2×, height 1×", lambda image: image.resize((490, 300))),
    ],
)
def test_pictures(words, change):
    pytest.importorskip("vwkit_opencv")
    sift = vwkit.create("featurizer", "sift", max_keypoints=500)
    first, second = scene(), change(scene())
    a, b = sift.features([first, second])
    found = geometry.compare(a, b, mirrored=sift.mirrored(first, a))
    assert found.words == words
    if found.mirrored:
        assert geometry.compare(a, b) is None
