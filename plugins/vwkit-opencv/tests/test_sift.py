from __future__ import annotations

import cv2
import numpy as np
import pytest
from vwkit_opencv import Sift

import vwkit
from vwkit.errors import ParameterError
from vwkit.jobs import Job, use_job
from vwkit.types import Features


def picture(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8, width // 8)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def one(image: np.ndarray, **params: object) -> Features:
    found = next(Sift(**params).features([image]))
    assert isinstance(found, Features)
    return found


def blob(height: int, width: int, x: float, y: float, spread: float) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    values = 255 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * spread**2))
    return values.astype(np.uint8)


@pytest.mark.parametrize("params", [{}, {"root": True}, {"max_keypoints": 40}, {"upright": True}])
def test_same_bytes_for_any_threads(params: dict[str, object]) -> None:
    images = [picture(seed=seed) for seed in range(4)]
    answers = []
    before = cv2.getNumThreads()
    for threads in (1, 2, 5):
        with use_job(Job(threads=threads)):
            found = list(Sift(**params).features(images))
        answers.append([(f.vectors.tobytes(), f.keypoints.tobytes()) for f in found])
    assert answers[0] == answers[1] == answers[2]
    assert cv2.getNumThreads() == before


def test_strongest_first_and_cut() -> None:
    every, some = one(picture()), one(picture(), max_keypoints=30)
    assert len(every.vectors) > 100
    assert (np.diff(every.keypoints[:, 4]) <= 0).all()
    assert (some.keypoints == every.keypoints[:30]).all()
    assert (some.vectors == every.vectors[:30]).all()


def test_ties_are_cut_to_the_number_asked_for() -> None:
    # Four equal blobs: equal responses, several directions each.
    image = np.zeros((160, 160), np.uint8)
    for x, y in ((40, 40), (120, 40), (40, 120), (120, 120)):
        image = np.maximum(image, blob(160, 160, x, y, 5))
    for count in (1, 2, 3, 5):
        assert len(one(image, max_keypoints=count).vectors) == count


def test_root_is_the_transform_of_the_same_name() -> None:
    plain, root = one(picture()), one(picture(), root=True)
    assert plain.vectors.dtype == np.uint8
    assert root.vectors.dtype == Sift(root=True).dtype == np.float32
    expected = vwkit.create("transform", "root-sift").transform(plain.vectors)
    assert root.vectors.tobytes() == expected.tobytes()
    assert (Sift().kind, Sift(root=True).kind) == ("sift", "sift+root-sift")


@pytest.mark.parametrize("max_side", [1600, 150, 120])
def test_coordinates_are_those_of_the_picture_given(max_side: int) -> None:
    found = one(blob(200, 300, 190.0, 83.0, 12), max_side=max_side, upright=True)
    assert found.size == (300, 200)
    x, y, scale, angle, _ = found.keypoints[0]
    assert (x, y) == pytest.approx((190, 83), abs=0.35)
    # The blob's own scale is √2 of its spread, as a diameter twice that (Lindeberg 1998).
    assert scale == pytest.approx(2 * 12, rel=0.2)
    assert angle == 0


def test_upright_gives_each_place_once() -> None:
    found = one(picture(), upright=True)
    assert (found.keypoints[:, 3] == 0).all()
    assert len(np.unique(found.keypoints, axis=0)) == len(found.keypoints)
    assert len(found.vectors) < len(one(picture()).vectors)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (3, 5), (8, 8), (3, 4000)])
@pytest.mark.parametrize("upright", [False, True])
def test_tiny_and_thin_pictures(shape: tuple[int, int], upright: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for image in (noise, np.zeros(shape, np.uint8)):
        found = one(image, upright=upright)
        assert found.vectors.shape == (len(found.keypoints), 128)
    assert found.vectors.shape == (0, 128)
    assert found.keypoints.shape == (0, 5)
    assert one(np.zeros(shape, np.uint8), root=True).vectors.dtype == np.float32


def test_parameters_keep_opencvs_spelling() -> None:
    with pytest.raises(ParameterError, match="did you mean contrastThreshold"):
        Sift(contrast_threshold=0.1)
    fewer = one(picture(), contrastThreshold=0.15)
    assert 0 < len(fewer.vectors) < len(one(picture()).vectors)
    for wrong in (
        {"max_keypoints": 0},
        {"sigma": 0.0},
        {"edgeThreshold": -1.0},
        {"max_side": 10**6},
    ):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            Sift(**wrong)


@pytest.mark.parametrize("params", [{}, {"upright": True}, {"root": True}])
def test_mirrored_without_looking_again(params: dict[str, object]) -> None:
    """The numbers of the mirrored picture are those of the picture, in another order."""
    image = picture()
    sift, found = Sift(**params), one(image, **params)
    told = sift.mirrored(image, found)
    looked = sift.mirrored(image)
    assert len(told.keypoints) == len(found.keypoints) > 30
    assert told.vectors.dtype == looked.vectors.dtype
    assert told.size == looked.size
    apart = told.keypoints[:, None, :4] - looked.keypoints[None, :, :4]
    apart[..., 3] = (apart[..., 3] + 180) % 360 - 180
    apart[..., 3] /= 10  # a direction is less exact than a place
    near = np.abs(apart).max(axis=2).argmin(axis=1)
    same = np.abs(apart)[np.arange(len(near)), near].max(axis=1) < 0.5
    assert same.mean() > 0.9
    off = told.vectors.astype(float) - looked.vectors[near].astype(float)
    length = np.linalg.norm(looked.vectors[near].astype(float), axis=1)
    assert np.median((np.linalg.norm(off, axis=1) / length)[same]) < 0.02
    again = sift._mirrored(told)
    assert again is not None
    assert np.array_equal(again.vectors, found.vectors)
