"""Pictures in few colours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, ParameterError
from vwkit.image import open_image
from vwkit.jobs import job
from vwkit.palettes.breathing import breathing
from vwkit.palettes.colours import check_space, colour_vectors, vector_colours
from vwkit.palettes.distinct import Counter, codes_of, colours_of, spread_over
from vwkit.palettes.dithering import Dither
from vwkit.palettes.nearest import nearest_colours, repaired
from vwkit.palettes.palette import Palette, ordered
from vwkit.palettes.png8 import write_png8
from vwkit.types import Array

__all__ = ["Quantized", "fit_palette", "make_palette", "quantize"]

# Another thousandth is not seen.
_ITERATIONS, _TOLERANCE = 25, 1e-3


class _Clusterer(Protocol):
    centers: Array

    def fit(self, data: Any, weights: Any = None) -> Any: ...


@dataclass(frozen=True, eq=False)
class Quantized:
    """A picture in few colours.

    Attributes
    ----------
    palette : Palette
    indices : (h, w) uint8
        Which of the palette's colours each pixel has.
    """

    palette: Palette
    indices: NDArray[np.uint8]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The picture, (h, w, 3) or (h, w, 4) uint8."""
        return self.palette.picture(self.indices)

    def save(self, path: str | Path) -> None:
        """Write it as a PNG with a palette; see `write_png8`."""
        write_png8(path, self.indices, self.palette.colours)

    def _repr_html_(self) -> str:
        """Show its palette in Jupyter."""
        return self.palette._repr_html_()


def quantize(
    image: Any,
    k: int = 16,
    *,
    space: str = "lab",
    dither: Dither = "none",
    seed: int = 0,
) -> Quantized:
    """Reduce a picture to k colours.

    Parameters
    ----------
    image : path, PIL image or (h, w[, 3|4]) array
    k : int
        1 to 256. A picture with fewer colours keeps exactly those.
    space : {"rgb", "lab", "oklab"}
        Where the error is made small: rgb for the best PSNR, lab for the smallest ΔE, oklab.
    dither : {"none", "floyd-steinberg", "blue-noise"}
    seed : int

    Returns
    -------
    Quantized
        ``palette`` and ``indices``; ``.save("picture.png")`` writes a PNG-8.

    Raises
    ------
    ImageError, ParameterError

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit.palettes import quantize
    >>> picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    >>> made = quantize(picture, 5)
    >>> len(made.palette), made.indices.shape
    (5, (4, 4))
    """
    _check_k(k)
    opened = open_image(image)
    pixels, counter = codes_of(opened), Counter()
    counter.add(pixels)
    codes, counts = counter.result()
    palette, nearest = fit_palette(colours_of(codes), counts, k, space=space, seed=seed)
    if dither == "none":
        width, height = opened.size
        flat = spread_over(pixels, codes, nearest.astype(np.uint8))
        return Quantized(palette, flat.reshape(height, width))
    indices = palette.apply(opened, dither).astype(np.uint8)
    return Quantized(recounted(palette, indices), indices)


def make_palette(
    images: Iterable[Any], k: int = 16, *, space: str = "lab", seed: int = 0
) -> Palette:
    """Return one palette of k colours for several pictures; `Palette.apply` uses it.

    Parameters
    ----------
    images : iterable of paths, PIL images or (h, w[, 3|4]) arrays
        Each is read once; memory grows with the distinct colours alone.
    k : int
        1 to 256.
    space : {"rgb", "lab", "oklab"}
    seed : int

    Raises
    ------
    ImageError, ParameterError
    DataError
        No picture.
    """
    _check_k(k)
    counter = Counter()
    for image in images:
        counter.add(codes_of(open_image(image)))
    codes, counts = counter.result()
    return fit_palette(colours_of(codes), counts, k, space=space, seed=seed)[0]


def fit_palette(
    colours: Array,
    counts: NDArray[np.int64],
    k: int,
    *,
    space: str = "lab",
    seed: int = 0,
    clusterer: _Clusterer | None = None,
) -> tuple[Palette, NDArray[np.int64]]:
    """Return a palette for counted colours, and which of its colours is nearest to each.

    Parameters
    ----------
    colours : (m, 3) or (m, 4) uint8
        Distinct; see `distinct_colours`.
    counts : (m,) int64
    k : int
    space : {"rgb", "lab", "oklab"}
    seed : int
    clusterer : optional
        A clusterer of vectors that takes weights, instead of breathing k-means.

    Returns
    -------
    palette : Palette
        k colours, all of them used; all m, unchanged, where there are no more than k.
    nearest : (m,) int64
    """
    check_space(space)
    if len(colours) == 0:
        raise DataError("colours: 0 were given; at least 1 is needed")
    if len(colours) <= k:
        return _exact(colours, counts, space)
    rows = colour_vectors(colours, space)
    weights = counts.astype(np.float64)
    if clusterer is None:
        centers: Array = breathing(
            rows,
            weights,
            k,
            seed=seed,
            iterations=_ITERATIONS,
            tolerance=_TOLERANCE,
            current=job(),
        ).centers
    else:
        centers = clusterer.fit(rows, weights=weights).centers
    return palette_of_centers(centers, colours, counts, k, space)


def palette_of_centers(
    centers: Array, colours: Array, counts: NDArray[np.int64], k: int, space: str
) -> tuple[Palette, NDArray[np.int64]]:
    """Return the palette that cluster centers stand for, repaired; see `fit_palette`."""
    if len(colours) <= k:
        return _exact(colours, counts, space)
    wanted = _settled(vector_colours(centers, space), colours, counts, space)
    held, nearest = repaired(wanted, colours, counts, k, space)
    pixels = np.zeros(len(held), np.int64)
    np.add.at(pixels, nearest, counts)
    palette, went = ordered(held, pixels, space)
    return palette, went[nearest]


def _settled(
    palette: NDArray[np.uint8], colours: Array, counts: NDArray[np.int64], space: str
) -> NDArray[np.uint8]:
    """Make colours opaque (or fully transparent) where most of their pixels are.

    A few faint pixels among many opaque ones would let all of these shine through a little.
    """
    if palette.shape[1] == 3:
        return palette
    nearest = nearest_colours(colours, palette, space)
    whole = np.bincount(nearest, weights=counts, minlength=len(palette))
    settled = palette.copy()
    for alpha in (255, 0):
        alike = np.where(colours[:, 3] == alpha, counts, 0)
        most = np.bincount(nearest, weights=alike, minlength=len(palette)) > whole / 2
        settled[most, 3] = alpha
    hidden = np.flatnonzero(colours[:, 3] == 0)
    if len(hidden) and len(settled) > 1 and settled[:, 3].any():
        # What cannot be seen stays so, were it ever so little.
        settled[nearest[hidden[0]], 3] = 0
    settled[settled[:, 3] == 0] = 0
    return settled


def _exact(
    colours: Array, counts: NDArray[np.int64], space: str
) -> tuple[Palette, NDArray[np.int64]]:
    return ordered(np.asarray(colours), counts, space)


def recounted(palette: Palette, indices: Array) -> Palette:
    """Return a palette with the counts of a picture."""
    counts = np.bincount(indices.ravel(), minlength=len(palette))
    return Palette(palette.colours, counts, palette.space)


def _check_k(k: int) -> None:
    if not 1 <= k <= 256:
        raise ParameterError(f"k must be from 1 to 256, what a PNG-8 holds; got {k}")
