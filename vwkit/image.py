"""Decoded images: untrusted files in, plain arrays out."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ImageError
from vwkit.types import Array

__all__ = ["SUFFIXES", "Image", "open_image", "picture_kind"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")

#: A larger picture is refused before it is decoded (a decompression bomb): 2^28 pixels.
MAX_PIXELS = 1 << 28

# Decoders that only read pixels. Others (PostScript, say) run programs and are never tried.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")


class Image:
    """One decoded image, upright (EXIF orientation applied).

    Attributes
    ----------
    size : (int, int)
        Width and height in pixels.
    rgb : (h, w, 3) uint8
        Colours; transparent parts are shown on white.
    rgba : (h, w, 4) uint8
        Colours as stored, with alpha.
    gray : (h, w) uint8
        Luma (ITU-R BT.601).
    alpha : (h, w) uint8 or None
        Opacity, where there is any transparency.
    source : str
        The file or a short description, for messages.
    """

    def __init__(self, pixels: Array, source: str = "image") -> None:
        self._pixels = pixels
        self.source = source

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self._pixels.shape[1]), int(self._pixels.shape[0])

    @functools.cached_property
    def alpha(self) -> NDArray[np.uint8] | None:
        """Opacity (h, w), or None if the image has none."""
        if self._pixels.ndim == 3 and self._pixels.shape[2] == 4:
            return np.ascontiguousarray(self._pixels[:, :, 3])
        return None

    @functools.cached_property
    def rgba(self) -> NDArray[np.uint8]:
        """Colours and opacity (h, w, 4) uint8."""
        alpha = np.full(self._pixels.shape[:2], 255, np.uint8) if self.alpha is None else self.alpha
        return np.dstack([self._plain_rgb(), alpha])

    @functools.cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """Colours (h, w, 3) uint8, on white where transparent."""
        plain = self._plain_rgb()
        if self.alpha is None:
            return plain
        opacity = self.alpha[:, :, None].astype(np.uint32)
        mixed = (plain * opacity + 255 * (255 - opacity) + 127) // 255
        return mixed.astype(np.uint8)

    @functools.cached_property
    def gray(self) -> NDArray[np.uint8]:
        """Luma (h, w) uint8."""
        if self._pixels.ndim == 2:
            return self._pixels
        rgb = self.rgb.astype(np.uint32)
        # The usual integer form of 0.299 R + 0.587 G + 0.114 B.
        luma = (19595 * rgb[:, :, 0] + 38470 * rgb[:, :, 1] + 7471 * rgb[:, :, 2] + 32768) >> 16
        return luma.astype(np.uint8)

    def _plain_rgb(self) -> NDArray[np.uint8]:
        if self._pixels.ndim == 2:
            return np.repeat(self._pixels[:, :, None], 3, axis=2)
        return np.ascontiguousarray(self._pixels[:, :, :3])


def open_image(image: Any, *, max_pixels: int = MAX_PIXELS, enough: int | None = None) -> Image:
    """Decode a path, a file in memory, a PIL image or an array.

    Parameters
    ----------
    image : path, io.BytesIO, PIL.Image.Image, Image, or (h, w[, 3|4]) uint8 or uint16 array
    max_pixels : int
        A larger picture is refused before it is decoded.
    enough : int, optional
        So many pixels on each side are enough, for a thumbnail, say: a file whose format allows it
        (JPEG) is decoded at a half, a quarter or an eighth of its size, several times as fast.

    Raises
    ------
    ImageError
        Not an image, truncated, or too large; the text names the file.
    """
    if isinstance(image, Image):
        return image
    if isinstance(image, np.ndarray):
        return Image(_from_array(image, "array"), "array")
    if isinstance(image, (str, Path)):
        return _open_file(Path(image), str(image), max_pixels, enough)
    if isinstance(image, io.BytesIO):
        return _open_file(image, "image", max_pixels, enough)
    from PIL.Image import Image as PILImage

    if isinstance(image, PILImage):
        return Image(_from_pil(image, "image", max_pixels), "image")
    raise ImageError(
        f"an image must be a path, a PIL image or an array (h, w[, 3|4]); got {type(image).__name__}"
    )


def picture_kind(file: Path | IO[bytes], *, max_pixels: int = MAX_PIXELS) -> str:
    """Say what kind of picture a file is, by its first bytes: ``jpg``, ``png``, …; nothing is decoded.

    Parameters
    ----------
    file : Path or file that can be read and sought
    max_pixels : int

    Raises
    ------
    ImageError
        Not a picture in a format that is read here, or too large.
    """
    import PIL.Image

    named = file if isinstance(file, Path) else "file"
    try:
        with _quiet_pillow():
            opened = PIL.Image.open(file, formats=_FORMATS)
        with opened:
            width, height = opened.size
            kind = str(opened.format).lower()
    except PIL.UnidentifiedImageError:
        raise ImageError(f"{named}: not an image in a format that is read here") from None
    except PIL.Image.DecompressionBombError:
        raise ImageError(f"{named}: far too many pixels; refused") from None
    except Exception as error:
        raise ImageError(_undecodable(str(named), error)) from None
    if width * height > max_pixels:
        raise ImageError(f"{named}: {width} × {height} pixels, more than {max_pixels:,}; refused")
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(kind, kind)


def _open_file(file: Path | io.BytesIO, path: str, max_pixels: int, enough: int | None) -> Image:
    import PIL.Image

    try:
        with _quiet_pillow():
            opened = PIL.Image.open(file, formats=_FORMATS)
        with opened:
            return Image(_from_pil(opened, path, max_pixels, enough), path)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except PIL.UnidentifiedImageError:
        raise ImageError(f"{path}: not an image in a format that is read here") from None
    except PIL.Image.DecompressionBombError:
        raise ImageError(f"{path}: far too many pixels; refused") from None
    except Exception as error:
        raise ImageError(_undecodable(path, error)) from None


def _from_pil(image: Any, source: str, max_pixels: int, enough: int | None = None) -> Array:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{source}: {width} × {height} pixels, more than {max_pixels:,}; refused")
    try:
        if enough is not None:
            image.draft("RGB", (enough, enough))
        return _decoded(image, source)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"{source}: does not fit in memory") from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise ImageError(_undecodable(source, error)) from None


def _decoded(image: Any, source: str) -> Array:
    import PIL.ImageOps

    image.load()
    upright = image
    with _quiet_pillow(), contextlib.suppress(Exception):  # damaged EXIF costs only the turning
        upright = PIL.ImageOps.exif_transpose(image)
    mode = upright.mode
    if mode.startswith("I"):
        deep = np.asarray(upright)
        if deep.min() >= 0 and deep.max() <= 65535:
            deep = deep.astype(np.uint16)
        return _from_array(deep, source)
    if mode == "F":
        return _from_array(np.asarray(upright), source)
    transparent = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info
    if mode in ("1", "L") and not transparent:
        return np.array(upright.convert("L"))
    return np.array(upright.convert("RGBA" if transparent else "RGB"))


def _undecodable(source: Path | str, error: Exception) -> str:
    return f"{source}: cannot be decoded: {' '.join(str(error).split()) or type(error).__name__}"


_filters = threading.Lock()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings of odd metadata.

    Warning filters belong to all threads: two threads that change and restore them at once would
    leave them changed for good.
    """
    with _filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _from_array(array: Array, source: str) -> Array:
    shape = array.shape
    if not (array.ndim in (2, 3) and 0 not in shape and (array.ndim == 2 or shape[2] in (1, 3, 4))):
        raise ImageError(f"{source}: an image array is (h, w), (h, w, 3) or (h, w, 4); got {shape}")
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return np.ascontiguousarray(array.astype(np.uint8) * np.uint8(255))
    if array.dtype.kind == "u" and array.itemsize == 2:  # in either byte order
        # 65535 / 255 is 257: the nearest 8-bit value of a 16-bit one.
        return np.ascontiguousarray(((array.astype(np.uint32) + 128) // 257).astype(np.uint8))
    raise ImageError(f"{source}: pixels must be uint8 or uint16; got {array.dtype}")
