"""Small pictures of many items, made on all threads."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from vwkit.errors import ImageError
from vwkit.image import open_image
from vwkit.jobs import job
from vwkit.report.pictures import data_uri, fitted
from vwkit.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["small_picture", "small_pictures", "thumbnails"]


def small_picture(item: Item, size: int, *, square: bool = False) -> Picture | None:
    """Return an item's picture within `size` by `size` pixels, or None if its file is gone.

    Parameters
    ----------
    item : Item
    size : int
        In pixels. Smaller pictures stay as they are, unless `square`.
    square : bool
        Whether to cut out the middle, so that the square is filled.
    """
    import PIL.Image
    import PIL.ImageOps

    if item.path is None:
        return None
    try:
        # Twice as large is enough to be made smaller without loss, and much quicker to decode.
        picture = PIL.Image.fromarray(open_image(item.path, enough=2 * size).rgb)
    except ImageError:
        return None
    if square:
        return PIL.ImageOps.fit(picture, (size, size), PIL.Image.Resampling.LANCZOS)
    return fitted(picture, size)


def small_pictures(
    items: Iterable[Item], size: int, *, square: bool = False
) -> Iterator[Picture | None]:
    """Yield `small_picture` of each item, in order; made on all threads, a little ahead."""
    threads = job().threads
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(threads, "vwkit-thumbnails") as pool:
        try:
            for item in items:
                run = contextvars.copy_context().run  # with the current job
                waiting.append(pool.submit(run, _checked, item, size, square))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _checked(item: Item, size: int, square: bool) -> Picture | None:
    job().check()
    return small_picture(item, size, square=square)


def thumbnails(items: Iterable[Item], size: int, *, square: bool = False) -> Iterator[str | None]:
    """Yield each item's small picture as a data URI, in order; None if its file is gone."""
    for picture in small_pictures(items, size, square=square):
        yield None if picture is None else data_uri(picture)
