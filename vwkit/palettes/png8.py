"""Pictures of at most 256 colours as PNG files: palette, index per pixel, opacity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, RunError
from vwkit.palettes.colours import as_colours
from vwkit.types import Array

__all__ = ["write_png8"]

# Above so many pixels, deflating harder costs seconds for a percent.
_LARGE = 1 << 22


def write_png8(
    path: str | Path, indices: Array, palette: Array, *, icc: bytes | None = None
) -> None:
    """Write a picture as a PNG with a palette (PNG-8; of 16 colours and less, fewer bits).

    Parameters
    ----------
    path : path
    indices : (h, w) integers
        Which colour of the palette each pixel has.
    palette : (k, 3) or (k, 4) uint8
        At most 256 colours; the fourth number is opacity, kept in the ``tRNS`` chunk.
    icc : bytes, optional
        A colour profile to keep.

    Raises
    ------
    DataError
        Not such arrays, or indices beyond the palette.
    RunError
        The file cannot be written.
    """
    colours, places = as_colours(palette), np.asarray(indices)
    if not 1 <= len(colours) <= 256:
        raise DataError(f"a PNG-8 holds 1 to 256 colours; got {len(colours)}")
    if places.ndim != 2 or places.dtype.kind not in "iu" or places.size == 0:
        raise DataError(
            f"indices are whole numbers (h, w); got shape {places.shape} {places.dtype}"
        )
    if int(places.min()) < 0 or int(places.max()) >= len(colours):
        raise DataError(
            f"indices run from {places.min()} to {places.max()}; the palette has "
            f"{len(colours)} colours"
        )
    _save(Path(path), places.astype(np.uint8), colours, icc)


def _save(
    path: Path, places: NDArray[np.uint8], colours: NDArray[np.uint8], icc: bytes | None
) -> None:
    import PIL.Image

    picture = PIL.Image.fromarray(places)
    picture.putpalette(colours[:, :3].tobytes(), "RGB")
    options: dict[str, Any] = {"compress_level": 9 if places.size <= _LARGE else 6}
    if colours.shape[1] == 4 and (colours[:, 3] < 255).any():
        last = int(np.flatnonzero(colours[:, 3] < 255)[-1])
        options["transparency"] = colours[: last + 1, 3].tobytes()
    if icc:
        options["icc_profile"] = icc
    try:
        picture.save(path, "PNG", **options)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
