"""Work on the words of images, a few images at a time: on threads here, or on workers.

An image is never cut: what comes of it does not depend on the images beside it, nor on who computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import job
from vwkit.row_readers import mapped_file
from vwkit.types import Array

__all__ = ["image_spans", "over_images"]

_DESCRIPTORS_AT_ONCE = 1 << 16
_IMAGES_AT_ONCE = 64
# What a worker gets at once: one of about so many tasks, of so many spans at most.
_TASKS = 64
_SPANS = 16
_FEW = 4

#: ``kernel(words, offsets, vectors, **shared)`` for some images; offsets from 0.
Kernel = Callable[..., Any]


def image_spans(
    offsets: NDArray[np.int64], most: int | None = None, spans: int = 1
) -> Iterator[tuple[int, int]]:
    """Cut 0…images into spans of few images with a bounded number of descriptors.

    Parameters
    ----------
    offsets : (images + 1,) int64
    most : int, optional
        Images of a span, if fewer than by default.
    spans : int
        How many of such spans are to be one.

    Yields
    ------
    first, last : int
        At least one image, and more only while their descriptors are not too many.
    """
    images, first = len(offsets) - 1, 0
    most = min(most or _IMAGES_AT_ONCE, _IMAGES_AT_ONCE) * spans
    while first < images:
        limit = int(offsets[first]) + _DESCRIPTORS_AT_ONCE * spans
        last = int(np.searchsorted(offsets, limit, side="right")) - 1
        last = max(first + 1, min(last, first + most, images))
        yield first, last
        first = last


def over_images(
    kernel: Kernel,
    shared: Mapping[str, Any],
    words: Array,
    offsets: NDArray[np.int64],
    vectors: Array | None = None,
    most: int | None = None,
) -> Iterator[Any]:
    """Call a kernel for all images, some at a time, where the job's chunks are computed.

    Parameters
    ----------
    kernel : callable
        A module-level function ``kernel(words, offsets, vectors, **shared)``.
    shared : dict
        Handed to every call.
    words : (n,) integers
    offsets : (images + 1,) int64
        Words ``offsets[i]`` to ``offsets[i + 1]`` belong to image i.
    vectors : (n, d) array or memory map, optional
        Cut like the words.
    most : int, optional
        Images for each call, if fewer than by default.

    Yields
    ------
    object
        What the kernel returns, in the order of the images.
    """
    current, spans = job(), 1
    given: dict[str, Any] = {"kernel": kernel, "shared": dict(shared), "most": most}
    if current.distributed:
        rows = int(offsets[-1] - offsets[0]) // _TASKS
        spans = max(1, min(_SPANS, rows // _DESCRIPTORS_AT_ONCE))
        given["readers"] = _readers(words, vectors)
    readers = given.get("readers")

    def tasks() -> Iterator[tuple[Any, ...]]:
        for first, last in image_spans(offsets, most, spans):
            own = np.asarray(offsets[first : last + 1])
            start, stop = int(own[0]), int(own[-1])
            if readers is not None:
                yield start, None, own - start
                continue
            part = None if vectors is None else np.asarray(vectors[start:stop])
            yield np.asarray(words[start:stop]), part, own - start

    if len(offsets) - 1 <= _FEW:  # a query, say: not worth a thread
        parts = iter([_computed(*task, **given) for task in tasks()])
    else:
        parts = current.each(_computed, tasks(), given)
    for part in parts:
        yield from part


def _readers(words: Array, vectors: Array | None) -> tuple[Any, Any] | None:
    """Return how workers read words and vectors; None where they cannot."""
    said = mapped_file(words[:, None])
    seen = None if vectors is None else mapped_file(vectors)
    return None if said is None or (seen is None) != (vectors is None) else (said, seen)


def _computed(
    given: Any,
    vectors: Array | None,
    offsets: NDArray[np.int64],
    *,
    kernel: Kernel,
    shared: dict[str, Any],
    most: int | None,
    readers: tuple[Any, Any] | None = None,
) -> list[Any]:
    """Call a kernel for some images; `given` are their words, or the first of rows to be read."""
    words = given
    if readers is not None:
        said, seen = readers
        stop = given + int(offsets[-1])
        words = said.read(given, stop)[:, 0]
        vectors = None if seen is None else seen.read(given, stop)
    found = []
    for first, last in image_spans(offsets, most):
        rows = slice(int(offsets[first]), int(offsets[last]))
        own = offsets[first : last + 1] - offsets[first]
        found.append(kernel(words[rows], own, None if vectors is None else vectors[rows], **shared))
    return found
