"""Pictures of a run's items: decoded with limits, encoded anew, kept in a bounded memory."""

from __future__ import annotations

import functools
import io
import os
import stat
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from vwkit.errors import ImageError
from vwkit.image import Image, open_image
from vwkit.report.pictures import fitted
from vwkit.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["Pictures", "encoded", "is_there", "open_item", "open_upload"]

_KEPT_BYTES = 64 * 1024 * 1024


def open_upload(body: bytes, max_pixels: int) -> Image:
    """Decode an uploaded picture.

    Raises
    ------
    ImageError
        Not a picture, damaged, or too large.
    """
    try:
        return open_image(io.BytesIO(body), max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(
            f"the upload is no picture that can be used: {str(error).removeprefix('image: ')}"
        ) from None


def open_item(item: Item, max_pixels: int, enough: int | None = None) -> Picture:
    """Decode an item's file as an upright RGB picture.

    Raises
    ------
    ImageError
        There is none (any more), or it is no picture.
    """
    import PIL.Image

    if not is_there(item):
        raise ImageError("the file of this item is gone")
    opened = open_image(str(item.path), max_pixels=max_pixels, enough=enough)
    return PIL.Image.fromarray(opened.rgb)


def is_there(item: Item) -> bool:
    """Tell whether an item has a file that is a file.

    The paths come from the run, which may be a stranger's: a number would be an open file of ours,
    and a pipe or a device would be read for ever.
    """
    try:
        return isinstance(item.path, str) and stat.S_ISREG(os.stat(item.path).st_mode)
    except (OSError, ValueError):
        return False


def encoded(picture: Picture, quality: int = 85) -> bytes:
    """Return a picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


class Pictures:
    """Small and large pictures of items as JPEG; what was made last is kept.

    Parameters
    ----------
    max_pixels : int
        A file with more is not decoded.
    """

    def __init__(self, max_pixels: int, kept_bytes: int = _KEPT_BYTES) -> None:
        self._max_pixels = max_pixels
        self._room = kept_bytes
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def kept(self, item: Item, size: int) -> bytes | None:
        """Return what was made before, if it is still there."""
        with self._lock:
            found = self._kept.get((item.row, size))
            if found is not None:
                self._kept.move_to_end((item.row, size))
            return found

    def make(self, item: Item, size: int) -> tuple[bytes, bool]:
        """Return a picture that fits into a square, and whether it is one or stands for one."""
        found = self.kept(item, size)
        if found is not None:
            return found, True
        try:
            picture = fitted(open_item(item, self._max_pixels, enough=size), size)
        except ImageError:
            return _stand_in(size), False
        made = encoded(picture)
        self._keep((item.row, size), made)
        return made, True

    def _keep(self, key: tuple[int, int], made: bytes) -> None:
        with self._lock:
            if key in self._kept or len(made) > self._room:
                return
            self._kept[key] = made
            self._held += len(made)
            while self._held > self._room:
                _, old = self._kept.popitem(last=False)
                self._held -= len(old)


@functools.lru_cache(maxsize=16)
def _stand_in(size: int) -> bytes:
    """Draw an empty frame, crossed out, for a picture that is gone."""
    import PIL.Image
    import PIL.ImageDraw

    width = min(size, 320)
    height = width * 3 // 4
    picture = PIL.Image.new("RGB", (width, height), (232, 233, 230))
    draw = PIL.ImageDraw.Draw(picture)
    line, third = max(1, width // 60), width // 3
    box = (third, height // 2 - third // 3, width - third, height // 2 + third // 3)
    draw.rectangle(box, outline=(150, 156, 160), width=line)
    draw.line((box[0], box[3], box[2], box[1]), fill=(150, 156, 160), width=line)
    return encoded(picture)
