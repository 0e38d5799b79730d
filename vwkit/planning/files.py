"""Descriptor files: what their headers tell, and how fast they are read."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vwkit.errors import VwkitError
from vwkit.formats import oxford
from vwkit.formats.remote import Place, RemotePlace
from vwkit.planning.data import Flowing, sampled
from vwkit.planning.hits import Hit
from vwkit.planning.meters import Clock
from vwkit.planning.spent import NOTHING, Spent
from vwkit.planning.stage import PlannedStage
from vwkit.remote import file_of, said_key
from vwkit.spec import open_source
from vwkit.stream import Stream

if TYPE_CHECKING:
    from vwkit.planning.walk import Walk

__all__ = ["from_vectors", "stamp"]

_HEAD = 4 << 20
_READ = 16 << 20


def from_vectors(walk: Walk) -> None:
    """Look at the header of the descriptor file."""
    spec, source = walk.spec, walk.spec.vectors
    if source is None:
        return
    place = file_of(source.path, fetch=False)
    stream: Stream = open_source(source, place)
    rows = None if stream.rows is None else float(stream.rows)
    # Without trials only what is certain is told.
    if rows is None and walk.measured is not None:
        rows = _inflated(place, stream)
        walk.rows_note = "rows: those of a compressed file, estimated from its beginning"
    about = [str(source.path), stamp(place), stream.dim, stream.dtype.str]
    read = NOTHING
    if walk.measured is not None:
        told = walk.measured.of({"reading": about}, lambda _: {"each": _reading(stream).plain()})
        read = Spent.of(told, "each")
    if walk.hits is not None:
        held = said_key(source.path) or walk.hits.file_key(place)
        reader = walk.signature(source.reader) if source.reader else None
        if held is not None:
            walk.key = {
                "file": held,
                "reader": reader,
                "limit": source.limit,
                "sample": [source.sample, spec.seed] if source.sample else None,
            }
    if "source" in walk.expected and source.images is not None and source.counts is not None:
        _with_items(walk, source.images, source.counts)
    mapped, in_memory = stream.array is not None, False
    for fewer in (source.sample, source.limit):
        rows = rows if fewer is None or rows is None else min(rows, float(fewer))
    if source.sample is not None:
        mapped, in_memory, read = False, True, NOTHING
    walk.flow = Flowing(
        rows, stream.dim, stream.dtype, mapped=mapped, held=in_memory, stream=True, read=read,
        sample=lambda n: sampled(stream, n), about=about,
    )  # fmt: skip


def stamp(path: Place) -> list[Any]:
    """Return what tells one state of a file from another."""
    if isinstance(path, RemotePlace):
        return [path.size, path.mark]
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _inflated(path: Place, stream: Stream) -> float | None:
    """Tell the rows of a compressed file by how well its beginning is compressed."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        wide = len(zlib.decompressobj(wbits=31).decompress(head))
    except (OSError, zlib.error):
        return None
    record = stream.dim * stream.dtype.itemsize + 4
    size = path.size if isinstance(path, RemotePlace) else path.stat().st_size
    return max(1.0, wide / max(1, len(head)) * size / record)


def _reading(stream: Stream) -> Spent:
    """Return the time to read one row."""
    rows = 0
    with Clock() as clock:
        for chunk in stream.chunks():
            rows += len(chunk)
            np.asarray(chunk).max(initial=0)  # what is mapped is read only when it is looked at
            if rows * stream.dim * stream.dtype.itemsize > _READ:
                break
    return clock.spent * (1 / max(1, rows))


def _with_items(walk: Walk, images: Path, counts: Path) -> None:
    """The offsets of the items are a stage."""
    hit, items = Hit(), None
    with contextlib.suppress(VwkitError, OSError):
        names = oxford.read_image_list(images)
        items = len(names)
        if walk.hits is not None:
            numbers = oxford.read_counts(counts, names)
            offsets = oxford.offsets_from_counts(numbers)
            hit = walk.look("source", {"offsets": offsets.tolist()})
    stage = PlannedStage("source", rows=items)
    walk.next_to_nothing(stage)
    stage.disk = 8.0 * ((items or 0) + 1)
    walk.add(stage, hit)
