"""The rows of shards: how many, cut from any data in one pass, and built into an index of their own."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import open_artifact
from vwkit.data import rows_of
from vwkit.errors import ArtifactError
from vwkit.index import Index
from vwkit.jobs import Job, job, use_job
from vwkit.sparse import Sparse
from vwkit.stream import row_spans

__all__ = [
    "SHARE",
    "build_elsewhere",
    "bytes_of",
    "fitting_rows",
    "name_of",
    "parts",
    "tasks",
    "unbuilt",
    "whole",
]

# Of the job's memory, the numbers of one shard by default: they are held once more in the index
# that is built of them, whose links and copies take as much again.
SHARE = 8
_HASHED = 8 << 20


def unbuilt(nested: Index) -> Any:
    """Return an index of the same parameters, to be built."""
    return copy.deepcopy(nested)


def bytes_of(rows: Any) -> int:
    """Return the bytes of an array or a Sparse."""
    if isinstance(rows, Sparse):
        return rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes
    return int(rows.nbytes)


def fitting_rows(vectors: Any, rows: int) -> int:
    """Return how many rows a shard may have, so that building it keeps to the job's memory."""
    if isinstance(vectors, Sparse):
        row = bytes_of(vectors) // max(1, rows)
    else:
        row = vectors.dim * vectors.dtype.itemsize
    return max(1, job().memory // (SHARE * max(1, row)))


def parts(vectors: Any, starts: list[int]) -> Iterator[Any]:
    """Yield the rows between each two of `starts`, in one pass; of an array or a map they are views."""
    spans = list(itertools.pairwise(starts))
    if isinstance(vectors, Sparse):
        yield from (vectors.rows(first, last) for first, last in spans)
        return
    if vectors.array is not None:
        yield from (vectors.array[first:last] for first, last in spans)
        return
    chunks, rest = iter(vectors), np.empty((0, vectors.dim), vectors.dtype)
    for first, last in spans:
        rows = np.empty((last - first, vectors.dim), vectors.dtype)
        done = 0
        while done < len(rows):
            if not len(rest):
                del rest  # with the chunk that it is the end of, before the next one comes
                rest = next(chunks)
            taken = min(len(rest), len(rows) - done)
            rows[done : done + taken] = rest[:taken]
            done, rest = done + taken, rest[taken:]
        yield rows
        del rows
    for _ in chunks:  # a Stream checks at its end that it brought what it promised
        pass


def tasks(vectors: Any, starts: list[int]) -> Iterator[tuple[Any, int, int]]:
    """Yield what another process needs to build a shard: the rows, or what reads them there."""
    reader = getattr(vectors, "reader", None)
    if reader is not None:
        yield from ((reader, first, last) for first, last in itertools.pairwise(starts))
        return
    for part in parts(vectors, starts):
        yield part, 0, rows_of(part)


def build_elsewhere(
    source: Any,
    first: int,
    last: int,
    *,
    nested: Index,
    place: str,
    budgets: dict[str, int],
    resumable: bool,
) -> str:
    """Build one shard in a folder; return the name it has there."""
    rows = source.read(first, last) if hasattr(source, "read") else source
    folder = Path(place) / name_of(nested, rows)
    if not (resumable and whole(folder)):
        with use_job(Job(threads=budgets["threads"], memory=budgets["memory"])):
            unbuilt(nested).build(rows).save(folder)
    return folder.name


def name_of(nested: Index, rows: Any) -> str:
    """Name a shard by all that decides it, so that it is found again when a build goes on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([nested.name, nested.params(late=False)], sort_keys=True).encode())
    parts = (rows.indptr, rows.indices, rows.data) if isinstance(rows, Sparse) else (rows,)
    for part in parts:
        digest.update(f" {part.dtype} {part.shape} ".encode())
        for start, stop in row_spans(len(part), max(1, _HASHED // max(1, part[:1].nbytes))):
            digest.update(np.ascontiguousarray(part[start:stop]).data)
    return f"shard-{digest.hexdigest()}"


def whole(folder: Path) -> bool:
    """Tell whether a shard is there, and undamaged."""
    try:
        open_artifact(folder)
    except ArtifactError:
        # Whatever is left of it, also without its manifest, would be in the way of a new one.
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True
