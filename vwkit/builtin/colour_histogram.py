"""How much of each colour a picture has: a fingerprint that needs no network and no training."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, backend
from vwkit.builtin.pixels import to_cielab, to_oklab
from vwkit.featurizer import Featurizer
from vwkit.image import Image
from vwkit.types import Array, Features

__all__ = ["ColourHistogram"]

Space = Literal["rgb", "hsv", "lab", "oklab"]

#: Colours are told apart by the first so many bits of each channel: 2^18 colours, so that a picture
#: of any size costs one look-up a pixel. Bins are far coarser.
_BITS = 6
_LEVELS = 1 << _BITS


@backend("colour-histogram")
class ColourHistogram(Featurizer):
    """The share of each colour in a picture: one vector of bins³ numbers, whatever its size.

    A joint histogram (Swain and Ballard 1991, "Color indexing") of the three channels of a colour
    space; a bin spans the same part of the range that sRGB colours take in that space. Pixels count
    by their opacity; a picture that is all transparent counts as white. It knows nothing of what is
    where, so a picture that is turned, mirrored or scaled keeps its vector.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> image = np.zeros((2, 3, 3), np.uint8)
    >>> image[0] = 255
    >>> (vector,) = vwkit.create("featurizer", "colour-histogram", bins=2, root=False).extract([image])
    >>> vector[vector > 0].tolist()
    [0.5, 0.5]
    """

    choose = "sorting photos by colour, without a network to download."

    deterministic = True
    thread_safe = True

    space: Space = Field(
        default="oklab", doc="Colour space: rgb, hsv, lab (CIELAB, D65) or oklab (perceptual)."
    )
    bins: Annotated[int, annotated_types.Ge(2), annotated_types.Le(32)] = Field(
        default=8, doc="Parts that each of the three channels is cut into, 2 to 32."
    )
    root: bool = Field(
        default=True,
        doc="Whether to give the square roots of the shares: vectors of length 1, whose Euclidean "
        "distances are Hellinger distances. Without, the shares, which sum to 1.",
    )

    @property
    def dim(self) -> int:
        """bins³."""
        return self.bins**3

    @property
    def kind(self) -> str:
        """Histograms of other spaces or bins are not to be compared."""
        return f"colour-histogram-{self.space}-{self.bins}{'-root' if self.root else ''}"

    def _extract(self, images: list[Image]) -> list[Features]:
        return [Features(self._histogram(image)[None]) for image in images]

    def _histogram(self, image: Image) -> NDArray[np.float32]:
        bins = _bins_of_colours(self.space, self.bins)
        alpha = image.alpha
        rgb = image.rgb if alpha is None else image.rgba[:, :, :3]
        level = (rgb >> (8 - _BITS)).astype(np.int32)
        colour = ((level[..., 0] << _BITS | level[..., 1]) << _BITS | level[..., 2]).ravel()
        weights = None if alpha is None else alpha.ravel()
        # Counted by colour first: whole numbers, so that the sum does not depend on any order.
        counts = np.bincount(colour, weights, minlength=len(bins))
        if counts.sum() == 0:
            counts[-1] = 1  # all transparent: shown on white
        shares = np.bincount(bins, counts, minlength=self.dim) / counts.sum()
        found: NDArray[np.float32] = (np.sqrt(shares) if self.root else shares).astype(np.float32)
        return found


@functools.lru_cache(maxsize=8)
def _bins_of_colours(space: Space, bins: int) -> NDArray[np.int64]:
    """Return the bin of each of the 2^18 colours, in the order red, green, blue."""
    steps = np.rint(np.arange(_LEVELS) * (255 / (_LEVELS - 1))).astype(np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    values = _CONVERT[space](rgb)
    low, high = values.min(axis=0), values.max(axis=0)
    place = np.floor((values - low) / (high - low) * bins).astype(np.int64)
    place = np.minimum(place, bins - 1)
    found: NDArray[np.int64] = (place[:, 0] * bins + place[:, 1]) * bins + place[:, 2]
    found.setflags(write=False)
    return found


def _to_hsv(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (n, 3) sRGB to hue, saturation and value from 0 to 1 (Smith 1978); greys have hue 0."""
    channels = rgb / 255.0
    most, least = channels.max(axis=1), channels.min(axis=1)
    span = most - least
    red, green, blue = channels.T
    some = np.where(span > 0, span, 1)
    hue = np.select(
        [span == 0, most == red, most == green],
        [np.zeros_like(span), (green - blue) / some % 6, (blue - red) / some + 2],
        (red - green) / some + 4,
    )
    return np.stack([hue / 6, span / np.where(most > 0, most, 1), most], axis=1)


def _plain(rgb: NDArray[np.uint8]) -> Array:
    return rgb.astype(np.float64)


_CONVERT = {"rgb": _plain, "hsv": _to_hsv, "lab": to_cielab, "oklab": to_oklab}
