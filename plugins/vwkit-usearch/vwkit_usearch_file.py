"""Saved files of usearch: looked at whole before the library maps them.

It follows whatever numbers stand there, and would crash on what they lead to.

Source: ``index_dense.hpp`` and ``index.hpp`` of USearch 2.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.errors import ArtifactError
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["check_file"]

# A file: rows and bytes of a row, the vectors, a head, a head of the graph, a level for each node,
# the nodes. A node: key, level, and for each level the number of its links and room for them all.
_MATRIX = struct.Struct("=II")
_HEAD = struct.Struct("=7s 3H 4B 3Q B 22x")
_GRAPH = struct.Struct("=5Q")
_NODE = 10
_REMOVED = 2**64 - 1
_CHECKED_BYTES = 2 << 20  # at a time; finding them takes eight times as much
_SCALARS = {"f32": (11, 4), "f16": (12, 2), "i8": (23, 1)}
_METRICS = {"l2sq": 101, "ip": 105, "cos": 99}


def check_file(
    path: Path, dim: int, dtype: str, metric: str, links: int, held: int, total: int
) -> None:
    """Look at every node of a saved graph: the library follows whatever numbers stand there.

    Parameters
    ----------
    path : Path
    dim : int
        Of the vectors.
    dtype, metric : str
        As the index was made: ``"f32"``, ``"f16"``, ``"i8"``; ``"l2sq"``, ``"ip"``, ``"cos"``.
    links : int
        The parameter `connectivity`.
    held, total : int
        Vectors in it, and rows ever given: every key is below.

    Raises
    ------
    ArtifactError
    """
    length = path.stat().st_size if path.is_file() else 0
    fine = False
    if length > _MATRIX.size:
        data = np.memmap(path, np.uint8, "r")
        rows, row_bytes = _MATRIX.unpack(data[: _MATRIX.size].tobytes())
        kind, scalar_bytes = _SCALARS[dtype]
        at = _MATRIX.size + rows * row_bytes
        if row_bytes == dim * scalar_bytes and length >= at + _HEAD.size + _GRAPH.size:
            head = _HEAD.unpack(data[at : at + _HEAD.size].tobytes())
            wanted = (b"usearch", _METRICS[metric], kind, 14, 15, held, rows - held, dim, 0)
            fine = (head[0], *head[4:]) == wanted and _fine(
                data[at + _HEAD.size :], rows, links, held, total
            )
    if not fine:
        raise ArtifactError(
            f"{path}: not a usearch index of {held} vectors of {dim} dimensions in {dtype} with "
            f"metric {metric} and connectivity {links}; damaged, make it again"
        )


def _fine(data: Array, rows: int, links: int, held: int, total: int) -> bool:
    count, connectivity, base, top, entry = _GRAPH.unpack(data[: _GRAPH.size].tobytes())
    if (count, connectivity, base) != (rows, links, 2 * links) or entry >= rows:
        return False
    nodes = data[_GRAPH.size + 2 * rows :]
    if len(data) < _GRAPH.size + 2 * rows:
        return False
    levels = data[_GRAPH.size : _GRAPH.size + 2 * rows].view(np.int16).astype(np.int64)
    if levels.min() < 0 or levels.max() != top or levels[entry] != top:
        return False
    lowest, higher = 4 + 4 * base, 4 + 4 * links
    ends = np.cumsum(_NODE + lowest + levels * higher)
    if ends[-1] != len(nodes):
        return False
    starts = np.concatenate([[0], ends[:-1]])
    keys = _numbers(nodes, starts, 8, np.uint64)
    known = np.unique(keys[keys != _REMOVED])
    own = _numbers(nodes, starts + 8, 2, np.int16)
    if len(known) != held or (keys != _REMOVED).sum() != held or known[-1] >= total:
        return False
    if not (own == levels).all():
        return False
    for level in range(top + 1):
        here = np.flatnonzero(levels >= level)
        inside = _NODE if level == 0 else _NODE + lowest + (level - 1) * higher
        room = base if level == 0 else links
        for start, stop in row_spans(len(here), max(1, _CHECKED_BYTES // lowest)):
            places = starts[here[start:stop]] + inside
            counts = _numbers(nodes, places, 4, np.uint32)
            if (counts > room).any():
                return False
            linked = _bytes(nodes, places + 4, 4 * room).view(np.uint32)
            linked = linked[np.arange(room) < counts[:, None]]
            if (linked >= rows).any() or (levels[linked] < level).any():
                return False
    return True


def _bytes(nodes: Array, places: Array, count: int) -> Array:
    """Return so many bytes from each place on, (n, count) uint8."""
    found: Array = nodes[places[:, None] + np.arange(count)]
    return found


def _numbers(nodes: Array, places: Array, size: int, dtype: Any) -> Array:
    found: Array = np.empty(len(places), dtype)
    for start, stop in row_spans(len(places), _CHECKED_BYTES // size):
        found[start:stop] = _bytes(nodes, places[start:stop], size).view(dtype)[:, 0]
    return found
