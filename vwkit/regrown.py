"""A run's stages of arrays with some items left out and others put behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import Artifact, write_artifact
from vwkit.jobs import job
from vwkit.sparse import Sparse
from vwkit.stage_arrays import sparse_of
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
            columns = int(first["shape"][1])
            whole = Sparse.stack(
                [rows for arrays, mask in parts for rows in _sparse_parts(arrays, mask)], columns
            )
            for name in ("indptr", "indices", "data"):
                draft.array(name, getattr(whole, name))
            draft.array("shape", np.array(whole.shape, np.int64))
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


def _sparse_parts(arrays: dict[str, Array], keep: NDArray[np.bool_] | None) -> list[Sparse]:
    whole = sparse_of(arrays)
    return [whole.rows(first, last) for first, last in _spans(keep, len(whole))]


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
