"""How pictures are prepared for networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwkit.errors import ParameterError
from vwkit.preprocessing import PRESETS, Preparation, resized


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plainly(image: np.ndarray, size: int, crop: int, method: Any) -> np.ndarray:
    """Do what torchvision does to a PIL image: resize all of it, then crop."""
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    new = (size, size * long // short) if height <= width else (size * long // short, size)
    whole = np.asarray(PIL.Image.fromarray(image).resize((new[1], new[0]), method))
    top, left = round((new[0] - crop) / 2), round((new[1] - crop) / 2)
    return whole[top : top + crop, left : left + crop]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([(8, 8), (16, 14), (37, 24), (256, 224)]),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_pixels_are_those_of_the_usual_way(
    height: int, width: int, sizes: tuple[int, int], method: str
) -> None:
    image = picture(height, width)
    size, crop = sizes
    found = resized(image, (crop, crop), (size, size), False, method)
    expected = plainly(image, size, crop, PIL.Image.Resampling[method.upper()])
    assert found.shape == (crop, crop, 3)
    assert (found == expected).all()


def test_a_thin_picture_is_no_more_work() -> None:
    row = picture(1, 60_000)
    for image in (row, row.transpose(1, 0, 2).copy()):
        # All of it would be 256 × 15 million pixels.
        found = resized(image, (224, 224), (256, 256), False, "bilinear")
        assert found.shape == (224, 224, 3)
    # The same picture with long black ends: but for rounding, the same middle.
    wide = picture(2, 300)
    whole = plainly(wide, 256, 224, PIL.Image.Resampling.BILINEAR)
    longer = np.pad(wide, ((0, 0), (30_000, 30_000), (0, 0)))
    found = resized(longer, (224, 224), (256, 256), False, "bilinear")
    assert np.abs(found.astype(int) - whole.astype(int)).max() <= 1


def test_a_picture_may_be_squashed_or_not_square() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 90:] = 255
    assert resized(image, (20, 20), (20, 20), True, "nearest")[:, 18:].min() == 255
    assert resized(image, (20, 20), (20, 20), False, "nearest").max() == 0
    assert resized(image, (30, 10), (36, 12), False, "bilinear").shape == (30, 10, 3)
    assert resized(image, (10, 90), (10, 90), False, "bilinear").shape == (10, 90, 3)


# The numbers of the presets, written out once more.
BY_HAND = {
    "imagenet": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "clip": lambda x: (
        (x / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    ),
    "keras-caffe": lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
    "none": lambda x: x,
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_numbers_of_a_preset(name: str, channels_last: bool) -> None:
    made = Preparation.of(
        PRESETS[name], np.dtype(np.float32), size=24, crop=24, channels_last=channels_last
    )
    image = picture(24, 24)  # as large as the crop, so that nothing is resized
    expected = BY_HAND[name](image.astype(np.float64))
    found = made.picture(image)
    if not channels_last:
        expected = expected.transpose(2, 0, 1)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_of_a_preset(name: str) -> None:
    made = Preparation.of(PRESETS[name], np.dtype(np.float64))
    image = picture(300, 400)
    found = made.picture(image)
    assert found.shape == (3, 224, 224)
    if name == "keras-caffe":
        whole = PIL.Image.fromarray(image).resize((224, 224), PIL.Image.Resampling.NEAREST)
        pixels = np.asarray(whole)
    elif name == "clip":
        pixels = plainly(image, 224, 224, PIL.Image.Resampling.BICUBIC)
    else:
        pixels = plainly(image, 256, 224, PIL.Image.Resampling.BILINEAR)
    expected = BY_HAND[name](pixels.astype(np.float64)).transpose(2, 0, 1)
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_is_given_wins_over_the_preset() -> None:
    made = Preparation.of(
        PRESETS["clip"],
        np.dtype(np.float32),
        crop=20,
        size=30,
        squash=True,
        interpolation="nearest",
        mean=(0.1, 0.2, 0.3),
        std=2.0,
    )
    image = picture(30, 90)
    pixels = np.asarray(PIL.Image.fromarray(image).resize((30, 30), PIL.Image.Resampling.NEAREST))
    expected = (pixels[5:25, 5:25] / 255 - [0.1, 0.2, 0.3]) / 2
    assert made.picture(image) == pytest.approx(expected.transpose(2, 0, 1), abs=1e-5)


def test_a_network_of_its_own_size() -> None:
    oblong = Preparation.of(PRESETS["none"], np.dtype(np.uint8), height=20, width=40)
    assert oblong.picture(picture(9, 200)).shape == (3, 20, 40)
    assert oblong.picture(picture()).dtype == np.uint8
    half = Preparation.of(PRESETS["imagenet"], np.dtype(np.float32), height=112, width=112)
    assert half.size == (128, 128)  # 256 for 224
    one = Preparation.of(PRESETS["none"], np.dtype(np.float32), height=32, crop=32)
    assert one.crop == (32, 32)


@pytest.mark.parametrize(
    ("given", "path", "text"),
    [
        ({"crop": 30, "height": 28, "width": 28}, "crop", "28 × 28 pixels"),
        ({"crop": 30, "size": 29}, "size", "at least the crop's 30; got 29"),
        ({"height": 9000}, "model", "at most 8192"),
        ({"mean": (1.0, 2.0)}, "mean", "a number or 3"),
        ({"mean": float("inf")}, "mean", "a number or 3"),
        ({"std": 0.0}, "std", "greater than 0"),
        ({"std": (1.0, 2.0, -3.0)}, "std", "greater than 0"),
    ],
)
def test_what_is_refused(given: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ParameterError, match=text) as caught:
        Preparation.of(PRESETS["imagenet"], np.dtype(np.float32), **given)
    assert caught.value.problems[0].path == (path,)


def test_descriptions_tell_preparations_apart() -> None:
    def described(preset: str = "imagenet", **given: Any) -> dict[str, Any]:
        return Preparation.of(PRESETS[preset], np.dtype(np.float32), **given).described()

    every = [
        described(),
        *(described(preset) for preset in ("clip", "keras-caffe", "none")),
        described(size=300),
        described(size=300, crop=100),
        described(squash=True),
        described(interpolation="bicubic"),
        described(mean=0.5),
        described(std=0.5),
    ]
    assert all(one != other for i, one in enumerate(every) for other in every[:i])
    assert described(size=256, crop=224) == described()


def test_noise_is_the_same_every_time() -> None:
    made = Preparation.of(PRESETS["none"], np.dtype(np.float32), crop=16)
    first, second = made.noise(3), made.noise(3)
    assert first.shape == (3, 3, 16, 16)
    assert first.tobytes() == second.tobytes()
    assert first[0].tobytes() != first[1].tobytes()
