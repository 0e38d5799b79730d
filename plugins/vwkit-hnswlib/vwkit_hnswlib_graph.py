"""Saved graphs of hnswlib: looked at whole before the library reads them.

It follows whatever numbers stand in the file, and would crash on what they lead to.

Source: ``saveIndex`` and ``loadIndex`` of hnswlib 0.8, ``hnswalg.h``.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ArtifactError
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["check_graph", "checked_header"]

# What hnswlib 0.8 writes first: offset of level 0, capacity, elements, bytes per element, offset
# of the label, offset of the vector, top level, entry point, max M, max M of level 0, M, level
# multiplier, ef_construction.
_HEADER = struct.Struct("=6Q i I 3Q d Q")
_CHECKED_BYTES = 16 << 20
_REMOVED = 1 << 16  # a bit of the number that counts a node's links at the bottom


def checked_header(path: Path, dim: int, links: int) -> int:
    """Return the number of vectors, if the file is what its header and our manifest say.

    The library reads memory sizes from here and trusts them.

    Parameters
    ----------
    path : Path
    dim : int
        Of the vectors.
    links : int
        The parameter M.

    Raises
    ------
    ArtifactError
    """
    size, head = 0, b""
    if path.is_file():
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    fine = False
    count = 0
    if len(head) == _HEADER.size:
        first, room, count, step, label, vector, level, entry, upper, most, m, mult, _ = (
            _HEADER.unpack(head)
        )
        fine = (
            first == 0
            and 0 < count <= room
            and upper == links
            # New vectors get their levels from it; with another they would need any memory.
            and math.isclose(mult, 1 / math.log(links), rel_tol=1e-6)
            and m == links
            and most == 2 * links
            and vector == 4 + 4 * most
            and label == vector + 4 * dim
            and step == label + 8
            and size >= _HEADER.size + count * step
            and level >= 0
            and entry < count
        )
    if not fine:
        raise ArtifactError(
            f"{path}: not an hnswlib index of {dim} dimensions with M = {links}; "
            "damaged, make it again"
        )
    return int(count)


def check_graph(path: Path, count: int, dead: NDArray[np.int64]) -> None:
    """Look at every node of a saved graph: links, levels, labels, and what is marked as removed.

    At the bottom each node has the number of its links, room for them, its vector and its label. Then
    each has the bytes of its lists above and these lists, one for each level.

    Parameters
    ----------
    path : Path
        A file that `checked_header` let through.
    count : int
        Of its vectors.
    dead : (n,) int64
        The removed ones, ascending.

    Raises
    ------
    ArtifactError
    """
    data = np.memmap(path, np.uint8, "r")
    head = _HEADER.unpack(data[: _HEADER.size].tobytes())
    step, label_at, top, entry, links = head[3], head[4], head[6], head[7], head[10]
    below = data[_HEADER.size : _HEADER.size + count * step].reshape(count, step)
    above = data[_HEADER.size + count * step :]
    levels = _levels(above, count, 4 + 4 * links)
    fine = levels is not None and int(levels.max()) == top == int(levels[entry])
    seen = np.zeros(count, bool)
    removed = np.zeros(count, bool)
    for start, stop in row_spans(count, max(1, _CHECKED_BYTES // step)) if fine else ():
        rows = below[start:stop]
        counts = _uint32(rows, 0, 1)[:, 0]
        labels = np.ascontiguousarray(rows[:, label_at : label_at + 8]).view(np.uint64)[:, 0]
        listed = _uint32(rows, 4, 2 * links)
        used = np.arange(2 * links) < (counts & 0xFFFF)[:, None]
        fine = (
            bool((counts & 0xFFFF <= 2 * links).all())
            and not (counts & ~np.uint32(_REMOVED | 0xFFFF)).any()
            and bool((labels < count).all())
            and not (used & (listed >= count)).any()
        )
        if not fine:
            break
        own = labels.astype(np.int64)
        seen[own] = True
        removed[own] = counts & _REMOVED != 0
    if (
        not fine
        or levels is None
        or not seen.all()
        or not np.array_equal(np.flatnonzero(removed), dead)
        or not _fine_above(above, levels, links)
    ):
        raise ArtifactError(
            f"{path}: not a graph of {count} vectors; damaged, make the index again"
        )


def _uint32(rows: Array, at: int, number: int) -> NDArray[np.uint32]:
    return np.ascontiguousarray(rows[:, at : at + 4 * number]).view(np.uint32)


def _levels(above: Array, count: int, width: int) -> NDArray[np.int64] | None:
    """Return each node's level, if the lists above the bottom fill their part of the file."""
    if len(above) < 4 * count or (len(above) - 4 * count) % width:
        return None
    levels, at = np.zeros(count, np.int64), 0
    # Most nodes have no list: runs of zeros are passed over at once.
    words = above[: len(above) // 4 * 4].view(np.uint32)
    if len(words) * 4 != len(above):
        return None
    full = np.flatnonzero(words)
    node = 0
    while node < count:
        following = np.searchsorted(full, at)
        run = (int(full[following]) if following < len(full) else len(words)) - at
        node, at = node + run, at + run
        if node >= count:
            break
        size = int(words[at])
        if size % width or at + 1 + size // 4 > len(words):
            return None
        levels[node] = size // width
        node, at = node + 1, at + 1 + size // 4
    return levels if node == count and at == len(words) else None


def _fine_above(above: Array, levels: NDArray[np.int64], links: int) -> bool:
    width = 1 + links
    words = above.view(np.uint32)
    tall = np.flatnonzero(levels)
    # A node's lists begin behind one number for each node so far, and behind the lists of those before.
    before = np.concatenate([[0], np.cumsum(levels[tall])[:-1]]) if len(tall) else tall
    starts = tall + 1 + before * width
    for level in range(1, int(levels.max(initial=0)) + 1):
        here = levels[tall] >= level
        places = starts[here] + (level - 1) * width
        for start, stop in row_spans(len(places), max(1, _CHECKED_BYTES // (4 * width))):
            lists = words[places[start:stop, None] + np.arange(width)]
            listed, used = lists[:, 1:], np.arange(links) < lists[:, :1]
            if (lists[:, 0] > links).any() or (used & (listed >= len(levels))).any():
                return False
            if (levels[listed[used]] < level).any():
                return False
    return True
