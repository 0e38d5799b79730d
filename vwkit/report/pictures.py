"""Pictures for pages: thumbnails and patches as data URIs, one image in memory at a time."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ImageError
from vwkit.image import open_image
from vwkit.jobs import job
from vwkit.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["Pictures", "fitted", "open_picture", "patch", "spread", "window"]

THUMBNAIL = 260
PATCH = 88
#: A patch shows this many keypoint diameters: what a SIFT descriptor sees is 4 bins of 1.5.
SPAN = 6.0
_SMALLEST = 10.0


def open_picture(source: Any) -> Picture | None:
    """Return an upright RGB picture, or None where there is none (any more).

    Parameters
    ----------
    source : path, PIL image, array or None
    """
    import PIL.Image

    job().check()
    if source is None:
        return None
    try:
        return PIL.Image.fromarray(open_image(source).rgb)
    except ImageError:
        return None  # gone or changed since the run: a page goes without it


def fitted(picture: Picture, size: int) -> Picture:
    """Return a copy that fits into a square of `size` pixels; small pictures stay as they are."""
    import PIL.Image

    small = picture.copy()
    small.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    return small


def window(scales: Any) -> Any:
    """Return the side in pixels of the square around a keypoint of this diameter."""
    wanted = np.nan_to_num(np.asarray(scales, np.float64), nan=0.0)
    return np.clip(wanted, _SMALLEST / SPAN, 1e6) * SPAN


def patch(picture: Picture, keypoint: Sequence[float], size: int = PATCH) -> Picture:
    """Cut out the surroundings of a keypoint, turned upright.

    Parameters
    ----------
    picture : PIL.Image.Image
    keypoint : x, y, scale, angle, …
        x and y in pixels, the first pixel's centre at 0, 0; scale a diameter in pixels; angle in
        degrees clockwise from the x axis. See `vwkit.types.Features`.
    size : int
        Side of the result in pixels.

    Returns
    -------
    PIL.Image.Image, size by size
        Grey where the square lies outside of the picture.
    """
    import PIL.Image

    x, y, scale, angle = (float(value) for value in np.nan_to_num(keypoint[:4], posinf=0, neginf=0))
    width, height = picture.size
    x, y = min(max(x, 0.0), width - 1.0) + 0.5, min(max(y, 0.0), height - 1.0) + 0.5
    side = min(float(window(scale)), 2.0 * max(picture.size))
    radius = side * 0.75  # half the diagonal, and a little
    left, top = max(0, int(x - radius)), max(0, int(y - radius))
    right, bottom = min(width, int(x + radius) + 2), min(height, int(y + radius) + 2)
    region = picture.crop((left, top, right, bottom))
    # Turning takes single pixels; a large region is averaged first, so that nothing flickers.
    shrink = max(1, int(side / (1.5 * size)))
    if shrink > 1:
        region = region.reduce(shrink)
    step = side / size / shrink
    cos, sin = np.cos(np.radians(angle)) * step, np.sin(np.radians(angle)) * step
    half = size / 2
    at_x, at_y = (x - left) / shrink, (y - top) / shrink
    turned = (cos, -sin, at_x - half * (cos - sin), sin, cos, at_y - half * (sin + cos))
    return region.transform(
        (size, size),
        PIL.Image.Transform.AFFINE,
        tuple(float(value) for value in turned),
        PIL.Image.Resampling.BICUBIC,
        fillcolor=(128, 128, 128),
    )


class Pictures:
    """Data URIs of a run's images; what was made once is kept."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], str | None] = {}

    def thumbnail(self, item: Item) -> str | None:
        """Return a small picture of an item, or None if its file is gone."""
        key = ("thumbnail", item.row)
        if key not in self._made:
            self._keep(item, self._open(item))
        return self._made[key]

    def stamp(self, item: Item) -> str | None:
        """Return a small square from the middle of an item's picture."""
        key = ("stamp", item.row)
        if key not in self._made:
            self._keep(item, self._open(item))
        return self._made[key]

    def patches(self, item: Item, keypoints: NDArray[np.float32]) -> list[str]:
        """Return one patch per keypoint (n, 5), or none if the file is gone."""
        picture = self._open(item)
        self._keep(item, picture)
        if picture is None:
            return []
        return [data_uri(patch(picture, keypoint.tolist())) for keypoint in keypoints]

    def _open(self, item: Item) -> Picture | None:
        return open_picture(None if item.path is None else Path(item.path))

    def _keep(self, item: Item, picture: Picture | None) -> None:
        """Keep what may be asked for next, so that no image is decoded twice."""
        import PIL.ImageOps

        small = None if picture is None else fitted(picture, THUMBNAIL)
        self._made["thumbnail", item.row] = None if small is None else data_uri(small)
        self._made["stamp", item.row] = (
            None if picture is None else data_uri(PIL.ImageOps.fit(picture, (2 * PATCH, 2 * PATCH)))
        )


def data_uri(picture: Picture) -> str:
    """Return a picture as a ``data:`` URI (JPEG)."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def spread(count: int, most: int, *, log: bool = False) -> list[int]:
    """Return at most `most` of the first `count` whole numbers, evenly spread, first and last included."""
    if count <= most:
        return list(range(count))
    steps = np.geomspace(1, count, most) - 1 if log else np.linspace(0, count - 1, most)
    found: list[int] = np.unique(np.rint(steps).astype(int)).tolist()
    return found
