"""A palette as a picture: each colour as wide as its share, and as a square."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vwkit.palettes.measures import shown_on

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from vwkit.palettes.palette import Palette

__all__ = ["chequered", "swatches"]

_WIDTH, _STRIP, _GAP = 960, 72, 12
_COLUMNS = 32
_LIGHT, _DARK, _FIELD = 255, 204, 8


def swatches(palette: Palette) -> Picture:
    """Draw a palette: a strip of its shares above squares of all colours, 960 pixels wide."""
    import PIL.Image

    columns = min(len(palette), _COLUMNS)
    side = _WIDTH // columns if len(palette) > _COLUMNS // 2 else min(_WIDTH // columns, 120)
    rows = -(-len(palette) // columns)
    height = _STRIP + _GAP + rows * side
    colours = palette.colours
    if colours.shape[1] == 3:
        colours = np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], axis=1)
    canvas = np.zeros((height, _WIDTH, 4), np.uint8)
    ends = np.rint(np.cumsum(palette.shares) * _WIDTH).astype(int)
    for colour, start, stop in zip(colours, np.r_[0, ends[:-1]], ends, strict=True):
        canvas[:_STRIP, start:stop] = colour
    for i, colour in enumerate(colours):
        top, left = _STRIP + _GAP + i // columns * side, i % columns * side
        canvas[top : top + side - 2, left : left + side - 2] = colour
    return PIL.Image.fromarray(canvas)


def chequered(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show a picture with opacity (h, w, 4) on the usual chequers, (h, w, 3) uint8."""
    h, w = colours.shape[:2]
    fields = (np.arange(h)[:, None] // _FIELD + np.arange(w)[None] // _FIELD) % 2 == 0
    flat = colours.reshape(-1, 4)
    light, dark = shown_on(flat, _LIGHT), shown_on(flat, _DARK)
    shown: NDArray[np.uint8] = np.where(fields.reshape(-1, 1), light, dark)
    return shown.reshape(h, w, 3)
