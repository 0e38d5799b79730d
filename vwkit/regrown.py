"""A run's stages of arrays with some items left out and others put behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import Artifact, Draft, write_artifact
from vwkit.jobs import job
from vwkit.types import Array

__all__ = ["write_regrown"]

_COPIED = 64 << 20


def write_regrown(
    old: Artifact, new: Artifact | None, keep: NDArray[np.bool_] | None, path: Path
) -> None:
    """Write a stage's arrays: the kept places of the old ones, then the new ones.

    Parameters
    ----------
    old : Artifact
        With one place for each item that was not skipped.
    new : Artifact or None
        The same stage of more items.
    keep : (places,) bool or None
        Which places of the old one stay; all without it.
    path : Path
        Where the stage is written; it may be larger than memory.
    """
    parts = [(old.arrays(), keep)] + ([(new.arrays(), None)] if new is not None else [])
    described = {key: old.manifest[key] for key in ("role", "name")}
    first = old.arrays()
    with write_artifact(path, described) as draft:
        if "indptr" in first:
            _write_sparse(draft, parts)
        for name in ("vectors", "keypoints", "words"):
            if name in first:
                growing = draft.growing(
                    name, first[name].shape[1] if first[name].ndim == 2 else None, first[name].dtype
                )
                for arrays, mask in parts:
                    for rows in _row_spans(arrays, name, mask):
                        growing.append(rows)
                        job().check()
                growing.close()
        if "offsets" in first:
            lengths = [
                np.diff(arrays["offsets"])[slice(None) if mask is None else mask]
                for arrays, mask in parts
            ]
            draft.array(
                "offsets",
                np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
            )
        if "sizes" in first:
            draft.array("sizes", np.concatenate([arrays["sizes"] for arrays, _ in parts]))
        skipped = [list(one) for one in old.manifest.get("skipped", [])]
        if new is not None and "sizes" in first:
            start = len(first["sizes"])
            skipped += [[start + int(row), why] for row, why in new.manifest.get("skipped", [])]
        if "skipped" in old.manifest:
            draft.manifest["skipped"] = skipped


def _spans(keep: NDArray[np.bool_] | None, count: int) -> list[tuple[int, int]]:
    """Return the runs of kept places."""
    if keep is None:
        return [(0, count)]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _write_sparse(
    draft: Draft, parts: list[tuple[dict[str, Array], NDArray[np.bool_] | None]]
) -> None:
    """Write sparse rows, a bounded number of entries at a time; only their lengths are in memory."""
    for name in ("indices", "data"):
        growing = draft.growing(name, None, parts[0][0][name].dtype)
        step = _COPIED // 8
        for arrays, mask in parts:
            pointers = arrays["indptr"]
            for first, last in _spans(mask, len(pointers) - 1):
                stop = int(pointers[last])
                for at in range(int(pointers[first]), stop, step):
                    growing.append(arrays[name][at : min(stop, at + step)])
                    job().check()
        growing.close()
    lengths = np.concatenate(
        [np.diff(arrays["indptr"])[slice(None) if mask is None else mask] for arrays, mask in parts]
    )
    draft.array("indptr", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    columns = int(parts[0][0]["shape"][1])
    draft.array("shape", np.array([len(lengths), columns], np.int64))


def _row_spans(
    arrays: dict[str, Array], name: str, keep: NDArray[np.bool_] | None
) -> Iterator[Array]:
    """Yield the rows of kept places, a bounded number at a time."""
    array = arrays.get(name)
    if array is None:
        return
    offsets = arrays.get("offsets")
    count = len(array) if offsets is None else len(offsets) - 1
    step = max(1, _COPIED // max(1, array[:1].nbytes))
    for first, last in _spans(keep, count):
        start, stop = (
            (first, last) if offsets is None else (int(offsets[first]), int(offsets[last]))
        )
        for at in range(start, stop, step):
            yield array[at : min(stop, at + step)]
