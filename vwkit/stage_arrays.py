"""Stages that are arrays: written all at once or row by row, and read back as what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import write_artifact
from vwkit.jobs import job
from vwkit.quantizer import Quantizer
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array, Item

__all__ = [
    "local_stream",
    "one_per_item",
    "write_arrays",
    "write_sparse",
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
    shape = (int(arrays["shape"][0]), int(arrays["shape"][1]))
    return Sparse(arrays["indptr"], arrays["indices"], arrays["data"], shape)


def write_arrays(path: Path, name: str, arrays: dict[str, Any]) -> None:
    """Write named arrays as an artifact."""
    with write_artifact(path, {"role": "stage", "name": name}) as draft:
        for key, array in arrays.items():
            draft.array(key, array)


def write_sparse(path: Path, sparse: Sparse) -> None:
    """Write sparse vectors as an artifact."""
    arrays = {"indptr": sparse.indptr, "indices": sparse.indices, "data": sparse.data}
    write_arrays(path, "vectors", {**arrays, "shape": np.array(sparse.shape, np.int64)})


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
