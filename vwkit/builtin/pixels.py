"""Pixels as vectors, for palettes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, backend
from vwkit.featurizer import Featurizer
from vwkit.image import Image
from vwkit.palettes.colours import colour_vectors, to_cielab, to_oklab
from vwkit.palettes.distinct import distinct_colours
from vwkit.types import Array, Features

__all__ = ["Pixels", "to_cielab", "to_oklab"]


@backend("pixels")
class Pixels(Featurizer):
    """Every pixel is a vector of three numbers; transparent parts are shown on white.

    Where a spec hands them straight to a clusterer, each colour is counted once, with a weight, and
    opacity is kept as a fourth number if any picture has transparency.

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
        return [Features(self._pixels(image.rgb)) for image in images]

    def _pixels(self, rgb: NDArray[np.uint8]) -> Array:
        if self.space == "rgb":
            return rgb.reshape(-1, 3)
        # Each colour is converted once: pictures have far fewer colours than pixels.
        found = distinct_colours(rgb)
        return colour_vectors(found.colours, self.space)[found.inverse.ravel()]
