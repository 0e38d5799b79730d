"""Saved arrays are read by kernels that check nothing: what does not fit together is refused before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vwkit_numba.graph_kmeans import GraphClusterer

__all__ = ["check_arrays"]

_FINITE = float(np.finfo(np.float32).max)


def check_arrays(fitted: GraphClusterer) -> None:
    """Check what `predict` indexes with.

    Raises
    ------
    ValueError
        Named after the first array that is wrong; who reads the artifact says where it lies.
    """
    k, groups = fitted.k, len(fitted._starts) - 1
    width = fitted._lists.shape[-1] if np.ndim(fitted._lists) else 0
    _check(fitted, "_lists", (k, width), np.int32, 0, k)
    _check(fitted, "_members", (k,), np.int32, 0, k - 1)
    _check(fitted, "_starts", (groups + 1,), np.int64, 0, k)
    _check(fitted, "labels", (len(fitted.labels),), np.int32, 0, k - 1)
    starts = fitted._starts
    if groups < 1 or starts[0] != 0 or starts[-1] != k or (np.diff(starts) < 0).any():
        raise ValueError("_starts do not cut the centers into groups")
    if width == 0 or width % 4:
        raise ValueError(f"_lists have {width} entries each, which is no multiple of four")
    if hasattr(fitted, "_shift"):
        _check(fitted, "_shift", (fitted._dim,), np.float32, -_FINITE, _FINITE)
        _check(fitted, "centers", (k, fitted._dim), np.float32, -_FINITE, _FINITE)
        scale: Any = getattr(fitted, "_scale", None)
        if np.size(scale) != 1 or not 0 < float(scale) < np.inf:
            raise ValueError("_scale is no positive number")
    frame = fitted._frame()
    _check(fitted, "_coarse", (groups, frame.wide), np.float32, -_FINITE, _FINITE)
    if frame.book is not None:
        kind = np.uint8 if frame.book.shape[1] <= 256 else np.uint16
        _check(fitted, "centers", (k, len(frame.book)), kind, 0, frame.book.shape[1] - 1)


def _check(
    fitted: Any, name: str, shape: tuple[int | None, ...], dtype: Any, low: float, high: float
) -> None:
    array = getattr(fitted, name)
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = getattr(array, "shape", type(array).__name__), getattr(array, "dtype", "")
        raise ValueError(f"{name}: {np.dtype(dtype)} of shape {shape} is needed; got {found}")
    # NaN fails both comparisons.
    if array.size and not (array.min() >= low and array.max() <= high):
        raise ValueError(f"{name}: entries from {low} to {high} are needed")
