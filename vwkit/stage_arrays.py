"""Stages that are arrays: written all at once or row by row, and read back as what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import write_artifact
from vwkit.builtin.aggregated import Aggregated
from vwkit.jobs import job
from vwkit.quantizer import Quantizer
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array, Item

__all__ = [
    "local_stream",
    "one_per_item",
    "sparse_of",
    "write_aggregated",
    "write_arrays",
    "write_stream",
    "write_words",
]


def local_stream(arrays: dict[str, Array], items: list[Item], kind: str) -> Stream:
    """Return local features as a Stream, with offsets, items and keypoints."""
    columns = {"keypoints": arrays["keypoints"]} if "keypoints" in arrays else {}
    return Stream.from_array(
        arrays["vectors"], offsets=arrays["offsets"], items=items, columns=columns, kind=kind
    )


def one_per_item(arrays: dict[str, Array]) -> Any:
    """Return the vectors of a stage, one row per item: an array or a Sparse."""
    return sparse_of(arrays) if "indptr" in arrays else arrays["vectors"]


def sparse_of(arrays: dict[str, Array]) -> Sparse:
    """Return the sparse vectors of a stage."""
    shape = (int(arrays["shape"][0]), int(arrays["shape"][1]))
    return Sparse(arrays["indptr"], arrays["indices"], arrays["data"], shape)


def write_arrays(path: Path, name: str, arrays: dict[str, Any]) -> None:
    """Write named arrays as an artifact."""
    with write_artifact(path, {"role": "stage", "name": name}) as draft:
        for key, array in arrays.items():
            draft.array(key, array)


def write_aggregated(path: Path, featurizer: Aggregated, words: Array, stream: Stream) -> None:
    """Write one vector per image, made of its descriptors and their words, a few images at a time.

    Parameters
    ----------
    path : Path
    featurizer : Aggregated
        Fitted.
    words : (n,) integers
    stream : Stream of n descriptors
        With the offsets of the images.
    """
    current = job()
    offsets = np.asarray(stream.offsets)
    images, done, sparse = len(offsets) - 1, 0, []
    with write_artifact(path, {"role": "stage", "name": "vectors"}) as draft:
        growing = None
        for rows in featurizer.aggregate(words, offsets, stream.array):
            if isinstance(rows, Sparse):
                sparse.append(rows)
            else:
                growing = growing or draft.growing("vectors", rows.shape[1], rows.dtype)
                growing.append(rows)
            done += len(rows)
            current.progress(done, images, "images")
        if growing is not None:
            growing.close()
        else:
            bags = Sparse.stack(sparse, featurizer.dim)
            for name in ("indptr", "indices", "data"):
                draft.array(name, getattr(bags, name))
            draft.array("shape", np.array(bags.shape, np.int64))


def write_stream(path: Path, name: str, stream: Stream, *, flat: bool = False) -> None:
    """Write a Stream row by row, with progress; `flat` for one value per row."""
    current = job()
    with write_artifact(path, {"role": "stage", "name": name}) as draft:
        growing = draft.growing(name, None if flat else stream.dim, stream.dtype)
        for chunk in stream:
            growing.append(chunk[:, 0] if flat else chunk)
            current.progress(growing.rows, stream.rows, "rows")
        growing.close()


def write_words(path: Path, vocabulary: Quantizer, stream: Stream) -> None:
    """Write the word of every descriptor, with the offsets of the items."""
    current = job()
    with write_artifact(path, {"role": "stage", "name": "words"}) as draft:
        growing = draft.growing("words", None, np.uint32)
        for chunk in vocabulary.encode(stream):
            growing.append(chunk[:, 0].astype(np.uint32))
            current.progress(growing.rows, stream.rows, "descriptors")
        growing.close()
        draft.array("offsets", np.asarray(stream.offsets))
