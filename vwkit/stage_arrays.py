"""Stages that are arrays: written all at once or row by row, and read back as what they were."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import Draft, write_artifact
from vwkit.builtin.aggregated import Aggregated
from vwkit.growing_arrays import GrowingArrays
from vwkit.jobs import Job, job
from vwkit.quantizer import Quantizer
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array, Item

__all__ = [
    "append_sparse",
    "finish_sparse",
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
    images = len(offsets) - 1
    with (
        write_artifact(path, {"role": "stage", "name": "vectors"}) as draft,
        GrowingArrays(draft, current) as growing,
    ):
        done = growing.position
        for rows in featurizer.aggregate(words, offsets[done:], stream.array):
            if isinstance(rows, Sparse):
                append_sparse(growing, rows)
            else:
                if "vectors" not in growing:
                    growing.array("vectors", rows.shape[1], rows.dtype, images)
                growing.append("vectors", rows)
            done += len(rows)
            growing.step(done)
            current.progress(done, images, "images")
        growing.close()
        if "vectors" not in growing:
            finish_sparse(draft, growing, featurizer.dim)


def append_sparse(growing: GrowingArrays, rows: Sparse) -> None:
    """Write sparse rows behind those written."""
    if "indptr" not in growing:
        growing.array("indptr", None, np.int64)
        growing.array("indices", None, np.int32)
        growing.array("data", None, np.float32)
        growing.append("indptr", np.zeros(1, np.int64))
    growing.append("indptr", rows.indptr[1:] + growing.rows("data"))
    growing.append("indices", rows.indices)
    growing.append("data", rows.data)


def finish_sparse(draft: Draft, growing: GrowingArrays, dim: int) -> None:
    """Write the shape of sparse rows, and what makes none of them a matrix."""
    if "indptr" not in growing:
        draft.array("indptr", np.zeros(1, np.int64))
        draft.array("indices", np.zeros(0, np.int32))
        draft.array("data", np.zeros(0, np.float32))
    draft.array("shape", np.array([max(0, growing.rows("indptr") - 1), dim], np.int64))


def write_stream(path: Path, name: str, stream: Stream, *, flat: bool = False) -> None:
    """Write a Stream row by row, with progress; `flat` for one value per row."""
    current = job()
    with (
        write_artifact(path, {"role": "stage", "name": name}) as draft,
        GrowingArrays(draft, current) as growing,
    ):
        growing.array(name, None if flat else stream.dim, stream.dtype, stream.rows)
        for chunk in _computed(stream.from_row(growing.position), current):
            growing.append(name, chunk[:, 0] if flat else chunk)
            growing.step(growing.position + len(chunk))
            current.progress(growing.position, stream.rows, "rows")
        growing.close()


def _computed(stream: Stream, current: Job) -> Iterable[Array]:
    """Return the chunks of a Stream; those of a lazy one are computed where the job says."""
    if current.distributed and stream.spans is not None and stream.array is None:
        return current.map(_same, stream)
    return stream


def _same(chunk: Array) -> Array:
    return chunk


def write_words(path: Path, vocabulary: Quantizer, stream: Stream) -> None:
    """Write the word of every descriptor, with the offsets of the items."""
    current = job()
    with (
        write_artifact(path, {"role": "stage", "name": "words"}) as draft,
        GrowingArrays(draft, current) as growing,
    ):
        growing.array("words", None, np.uint32, stream.rows)
        words = vocabulary.encode(stream).from_row(growing.position)
        for chunk in _computed(words, current):
            growing.append("words", chunk[:, 0].astype(np.uint32))
            growing.step(growing.position + len(chunk))
            current.progress(growing.position, stream.rows, "descriptors")
        growing.close()
        draft.array("offsets", np.asarray(stream.offsets))
