"""Hypothesis strategies for vectors, codes, images and streams.

Seeds are drawn rather than numbers, so that hundreds of values cost one draw and a failing example
is a short line. Values are at most 1e3 in magnitude and spread around 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from vwkit.stream import Stream
from vwkit.testing.data import KINDS, Picture, Rows, cut

__all__ = ["codes", "images", "pictures", "recipes", "streams", "vectors"]

_SEEDS = st.integers(0, 2**16 - 1)
_SCALES = st.sampled_from([1.0, 30.0, 1000.0])


@st.composite
def recipes(
    draw: st.DrawFn,
    *,
    rows: tuple[int, int] = (1, 60),
    dim: tuple[int, int] = (1, 8),
    step: int = 1,
    kinds: tuple[str, ...] = KINDS,
) -> Rows:
    """Draw a recipe of rows; see `vectors`."""
    n = draw(st.integers(*rows))
    d = step * draw(st.integers(max(1, dim[0] // step), max(1, dim[1] // step)))
    return Rows(draw(_SEEDS), n, d, draw(st.sampled_from(kinds)), draw(_SCALES))


def vectors(
    *,
    rows: tuple[int, int] = (1, 60),
    dim: tuple[int, int] = (1, 8),
    step: int = 1,
    kinds: tuple[str, ...] = KINDS,
) -> st.SearchStrategy[NDArray[np.float32]]:
    """Draw an (n, d) float32 array.

    Parameters
    ----------
    rows, dim : (int, int)
        Smallest and largest n and d.
    step : int
        d is a multiple of it.
    kinds : tuple of str
        See `vwkit.testing.data.numbers`.
    """
    found: st.SearchStrategy[Rows] = recipes(rows=rows, dim=dim, step=step, kinds=kinds)
    return found.map(Rows.make)


@st.composite
def codes(
    draw: st.DrawFn, *, rows: tuple[int, int] = (1, 60), m: int = 2, ks: int = 16
) -> NDArray[Any]:
    """Draw (n, m) codes from 0 to ks - 1, uint8 or uint16."""
    n = draw(st.integers(*rows))
    found = np.random.default_rng(draw(_SEEDS)).integers(0, ks, (n, m))
    return found.astype(np.uint8 if ks <= 256 else np.uint16)


@st.composite
def pictures(draw: st.DrawFn, *, side: tuple[int, int] = (1, 40)) -> Picture:
    """Draw a recipe of an image; see `images`."""
    height, width = draw(st.integers(*side)), draw(st.integers(*side))
    form = draw(st.sampled_from(["rgb", "gray", "alpha", "flat"]))
    return Picture(draw(_SEEDS), height, width, form, draw(st.booleans()))


def images(*, side: tuple[int, int] = (1, 40)) -> st.SearchStrategy[NDArray[Any]]:
    """Draw an image array: (h, w), (h, w, 3) or (h, w, 4), uint8 or uint16."""
    found: st.SearchStrategy[Picture] = pictures(side=side)
    return found.map(Picture.make)


@st.composite
def streams(
    draw: st.DrawFn, *, rows: tuple[int, int] = (1, 60), dim: tuple[int, int] = (1, 8)
) -> Stream:
    """Draw a Stream of float32 vectors, cut anyhow, its number of rows known or not."""
    array = draw(vectors(rows=rows, dim=dim))
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    return cut(array, sizes, known=draw(st.booleans()))
