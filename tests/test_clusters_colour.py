"""The featurizer `colour-histogram` against a slow one, and what it must not see."""

import colorsys
import functools

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from tests.helpers import picture
from vwkit.reference.pixels import pixels

SPACES = ("rgb", "hsv", "lab", "oklab")
STEPS = np.rint(np.arange(64) * 255 / 63).astype(np.uint8)


def made(**params):
    return vwkit.create("featurizer", "colour-histogram", **params)


def in_space(rgb, space):
    """Convert (n, 3) uint8 plainly."""
    if space == "hsv":
        return np.array([colorsys.rgb_to_hsv(*row) for row in (rgb / 255).tolist()])
    return np.asarray(pixels(rgb[None], space), float)


@functools.cache
def box(space):
    """Return the least and the largest of each channel among all colours."""
    # Only colours at the faces of the cube can be extreme.
    grid = np.stack(np.meshgrid(STEPS, STEPS, STEPS[[0, 63]], indexing="ij"), -1).reshape(-1, 3)
    values = in_space(np.concatenate([np.roll(grid, turn, axis=1) for turn in range(3)]), space)
    return values.min(0), values.max(0)


def slow(rgb, alpha, space, bins):
    """Count pixel by pixel."""
    low, high = box(space)
    counts = np.zeros(bins**3)
    for value, weight in zip(in_space(STEPS[rgb >> 2], space), alpha, strict=True):
        place = np.minimum(np.floor((value - low) / (high - low) * bins), bins - 1).astype(int)
        counts[(place[0] * bins + place[1]) * bins + place[2]] += weight
    return counts / counts.sum()


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 99), bins=st.integers(2, 6))
def test_it_counts_as_the_slow_one(space, seed, bins):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (5, 4, 4)).astype(np.uint8)
    (found,) = made(space=space, bins=bins, root=False).extract([image])
    flat = image.reshape(-1, 4)
    alpha = flat[:, 3].astype(float)
    expected = slow(flat[:, :3], alpha, space, bins)
    # Where a colour lies on the border of two bins, rounding decides.
    assert np.abs(found[0] - expected).sum() <= 2 * alpha.max() / alpha.sum() + 1e-5


@pytest.mark.parametrize("space", SPACES)
def test_shares_and_their_roots(space):
    image = picture(3)
    (shares,) = made(space=space, root=False).extract([image])
    (roots,) = made(space=space).extract([image])
    assert shares.shape == (1, 512)
    assert shares.dtype == roots.dtype == np.float32
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    assert (roots**2).sum() == pytest.approx(1, abs=1e-5)
    assert np.allclose(roots**2, shares, atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_corners_of_the_space_are_told_apart(space):
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    images = [np.full((2, 2, 3), colour, np.uint8) for colour in colours]
    vectors = made(space=space, bins=8).vectors(images)
    assert ((vectors > 0).sum(axis=1) == 1).all()
    assert len(set(vectors.argmax(axis=1).tolist())) == len(colours)


def test_size_and_place_do_not_matter():
    image = np.asarray(picture(4))
    vectors = made().vectors([image, image[::-1], np.rot90(image), np.repeat(image, 3, axis=0)])
    assert np.allclose(vectors, vectors[0], atol=1e-6)


def test_pixels_count_by_their_opacity():
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, :, 3] = (255, 51, 0)
    image[0, 1, :3], image[0, 2, :3] = 255, (255, 0, 0)
    (found,) = made(bins=2, root=False).extract([image])
    assert sorted(found[found > 0].tolist()) == pytest.approx([1 / 6, 5 / 6])


def test_all_transparent_is_white():
    clear = np.zeros((3, 3, 4), np.uint8)
    white = np.full((3, 3, 3), 255, np.uint8)
    found = made().vectors([clear, white])
    assert (found[0] == found[1]).all()


def test_grey_is_grey_in_every_mode():
    grey = PIL.Image.fromarray(np.full((4, 4), 120, np.uint8))
    deep = PIL.Image.fromarray(np.full((4, 4), 120 * 257, np.uint16))
    vectors = made().vectors([grey, grey.convert("RGB"), deep, grey.convert("LA")])
    assert (vectors == vectors[0]).all()


@pytest.mark.parametrize("params", [{"bins": 1}, {"bins": 33}, {"space": "cmyk"}])
def test_parameters(params):
    with pytest.raises(vwkit.ParameterError, match=f"colour-histogram.{next(iter(params))}"):
        made(**params)
