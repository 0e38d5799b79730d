"""Pixels as vectors, for palettes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, backend
from vwkit.featurizer import Featurizer
from vwkit.image import Image
from vwkit.types import Array, Features

__all__ = ["Pixels", "to_oklab"]

# sRGB to linear light (IEC 61966-2-1), one entry per 8-bit value.
_STEPS = np.arange(256) / 255.0
_LINEAR = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4)

# Björn Ottosson 2020, "A perceptual color space for image processing": linear sRGB → LMS → Lab.
_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Linear sRGB → CIE XYZ, D65 (IEC 61966-2-1), and the white point that belongs to it.
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _XYZ.sum(axis=1)


def to_oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (n, 3) sRGB to Oklab, (n, 3) float64."""
    lab: NDArray[np.float64] = np.cbrt(_LINEAR[rgb] @ _LMS.T) @ _OKLAB.T
    return lab


def to_cielab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (n, 3) sRGB to CIELAB (D65), (n, 3) float64."""
    ratio = (_LINEAR[rgb] @ _XYZ.T) / _WHITE
    delta = 6 / 29
    curve = np.where(ratio > delta**3, np.cbrt(ratio), ratio / (3 * delta**2) + 4 / 29)
    x, y, z = curve.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@backend("pixels")
class Pixels(Featurizer):
    """Every pixel is a vector of three numbers.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> image = np.zeros((2, 3, 3), np.uint8)
    >>> [v.shape for v in vwkit.create("featurizer", "pixels").extract([image])]
    [(6, 3)]
    """

    choose = "palettes and colour statistics."

    local = True
    deterministic = True
    thread_safe = True

    space: Literal["rgb", "lab", "oklab"] = Field(
        default="rgb", doc="Colour space: rgb (uint8), lab (CIELAB, D65) or oklab (float32)."
    )

    @property
    def dim(self) -> int:
        """Three."""
        return 3

    @property
    def kind(self) -> str:
        """Colours of one space are not colours of another."""
        return f"pixels-{self.space}"

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 for rgb, else float32."""
        return np.dtype(np.uint8 if self.space == "rgb" else np.float32)

    def _extract(self, images: list[Image]) -> list[Features]:
        return [Features(self._pixels(image.rgb.reshape(-1, 3))) for image in images]

    def _pixels(self, rgb: NDArray[np.uint8]) -> Array:
        if self.space == "rgb":
            return rgb
        convert = to_oklab if self.space == "oklab" else to_cielab
        return convert(rgb).astype(np.float32)
