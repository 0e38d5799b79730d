"""The data that the suite feeds to backends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vwkit.stream import Stream
from vwkit.types import Array

__all__ = [
    "DEFAULTS",
    "KINDS",
    "Picture",
    "Rows",
    "ascending",
    "cut",
    "far_away",
    "layouts",
    "mixture",
    "noise",
    "numbers",
    "photo",
    "textured",
]

#: Parameters that must be given and that the suite gives where the author does not, by role.
DEFAULTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {"clusterer": {"k": 5}, "quantizer": {"m": 2, "ks": 16}}
)

KINDS = ("normal", "uniform", "grid", "repeats", "zeros", "bytes")


def numbers(
    seed: int, rows: int, dim: int, kind: str = "normal", scale: float = 100.0
) -> NDArray[np.float32]:
    """Return (rows, dim) float32 values, spread around 0 and at most 1e3 in magnitude.

    Parameters
    ----------
    seed, rows, dim : int
    kind : str
        ``normal`` and ``uniform``, full of digits that float16 cannot hold; ``grid``, small whole
        numbers and so many ties; ``repeats``, few distinct rows; ``zeros``, mostly zero, some rows
        wholly; ``bytes``, whole numbers from 0 to 255.
    scale : float
        Spread of the first two.
    """
    rng = np.random.default_rng([seed, rows, dim])
    found: NDArray[np.float64]
    if kind == "normal":
        found = rng.normal(0, scale / 3, (rows, dim))
    elif kind == "grid":
        found = rng.integers(-2, 3, (rows, dim)).astype(np.float64)
    elif kind == "repeats":
        pool = rng.uniform(-scale, scale, (max(1, rows // 5), dim))
        found = pool[rng.integers(0, len(pool), rows)]
    elif kind == "zeros":
        found = rng.uniform(-scale, scale, (rows, dim))
        found[rng.random((rows, dim)) < 0.6] = 0
        found[rng.random(rows) < 0.1] = 0
    elif kind == "bytes":
        found = rng.integers(0, 256, (rows, dim)).astype(np.float64)
    else:
        found = rng.uniform(-scale, scale, (rows, dim))
    clipped: NDArray[np.float32] = np.clip(found, -1000, 1000).astype(np.float32)
    return clipped


@dataclass(frozen=True)
class Rows:
    """A recipe of rows, so that a failing example is one short line that can be pasted."""

    seed: int
    rows: int
    dim: int
    kind: str
    scale: float

    def make(self) -> NDArray[np.float32]:
        """Return the rows; see `numbers`."""
        return numbers(self.seed, self.rows, self.dim, self.kind, self.scale)


def far_away(seed: int, rows: int, dim: int) -> NDArray[np.float32]:
    """Return rows near each other and far from 0, where ``x² - 2xy + y²`` loses every digit."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 0.5, (rows, dim)) + 900).astype(np.float32)


def ascending(rows: Array) -> Array:
    """Return rows in the order of their first number, so that the first are unlike the last."""
    ordered: Array = np.ascontiguousarray(rows[np.argsort(rows[:, 0], kind="stable")])
    return ordered


def noise(seed: int, rows: int, dim: int) -> NDArray[np.float32]:
    """Return normally distributed rows: no clusters, so many local optima."""
    return np.random.default_rng(seed).normal(0, 1, (rows, dim)).astype(np.float32)


def mixture(seed: int, rows: int, dim: int, groups: int) -> NDArray[np.float32]:
    """Return rows of clearly separated groups, in mixed order."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-300, 300, (groups, dim))
    member = rng.permutation(np.arange(rows) % groups)
    spread: NDArray[np.float32] = (centers[member] + rng.normal(0, 5, (rows, dim))).astype(
        np.float32
    )
    return spread


def layouts(array: Array) -> Iterator[tuple[str, Array]]:
    """Yield the same numbers in other types and memory layouts, each with its name."""
    yield "float64", array.astype(np.float64)
    if (array >= 0).all() and (array <= 255).all() and (array == np.floor(array)).all():
        yield "uint8", array.astype(np.uint8)
    yield "Fortran-ordered", np.asfortranarray(array)
    wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
    wide[::2, 1::3] = array
    yield "strided", wide[::2, 1::3]
    backwards = np.ascontiguousarray(array[::-1])
    yield "reversed", backwards[::-1]


def cut(array: Array, sizes: list[int], known: bool = True) -> Stream:
    """Return a Stream over an array in chunks of these sizes, repeated as long as rows are left.

    A size of 0 is a chunk without rows, as an image without keypoints brings it.
    """

    def chunks() -> Iterator[Array]:
        start = turn = 0
        while start < len(array):
            stop = start + sizes[turn % len(sizes)]
            yield array[start:stop]
            start, turn = stop, turn + 1

    rows = len(array) if known else None
    return Stream(chunks, dim=array.shape[1], dtype=array.dtype, rows=rows)


def photo(seed: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Return an (h, w, 3) picture with edges, corners and smooth parts, as photographs have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    shade = 60 + 60 * np.sin(x / 9 + rng.uniform(0, 6)) * np.cos(y / 7 + rng.uniform(0, 6))
    picture = shade[:, :, None] + rng.uniform(0, 40, 3)
    for _ in range(14):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, broad = rng.integers(3, 16, 2)
        picture[top : top + tall, left : left + broad] = rng.uniform(0, 255, 3)
    picture += rng.normal(0, 4, picture.shape)
    pixels: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return pixels


def textured(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return an (h, w, 3) picture that is full of corners and spots, as gravel is."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(0, 130, (-(-height // 6), -(-width // 6))), np.ones((6, 6)))
    shade = coarse[:height, :width] + rng.uniform(0, 60, (height, width))
    picture = photo(seed, height, width) / 4 + shade[:, :, None]
    pixels: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    return pixels


@dataclass(frozen=True)
class Picture:
    """A recipe of an image: ``rgb``, ``gray``, ``alpha`` or ``flat``, in 8 bits or in 16."""

    seed: int
    height: int
    width: int
    form: str
    deep: bool

    def make(self) -> Array:
        """Return (h, w), (h, w, 3) or (h, w, 4), uint8 or uint16."""
        found: Array = photo(self.seed, self.height, self.width)
        if self.form == "gray":
            found = found[:, :, 0]
        elif self.form == "alpha":
            found = np.dstack([found, found[:, :, 1]])
        elif self.form == "flat":
            found = np.full_like(found, self.seed % 256)
        if self.deep:
            found = found.astype(np.uint16) * np.uint16(257)
        return np.ascontiguousarray(found)
