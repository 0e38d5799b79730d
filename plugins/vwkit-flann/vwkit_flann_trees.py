"""FLANN's trees as plain arrays, which are looked at before the library gets them.

The library follows whatever its file says: to rows and dimensions that there are not, and down trees that
do not end. So what is saved are the numbers of its trees, as arrays, and what it reads is made of these
after every one of them was found to fit (`vwkit_flann_archive`).

A tree stands in preorder: a node, then all of its first child, and so on. Which nodes are leaves tells its
shape.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vwkit_flann_archive import BLOCK, KDTREE, KMEANS, Reader, Writer

from vwkit.errors import ArtifactError, BackendError
from vwkit.types import Array

__all__ = ["LEVELS", "KDTrees", "KMeansTree", "load_tree", "read_array", "save_tree"]

#: The library goes down a tree by calling itself: 5,000 levels fit into a stack of 512 KiB, which is the
#: smallest that threads commonly have. Trees of its own making have some ten to a thousand levels.
LEVELS = 4000
_MOST_TREES = 1024
_DIMENSIONS = 2**31 - 1  # more than any of a tree that the library itself made
_Wanted = tuple[str, str, tuple[int | None, ...]]


@dataclass
class KDTrees:
    """Randomised k-d trees of n vectors: one vector in each leaf, two children elsewhere.

    Attributes
    ----------
    leaves : (trees, ⌈(2n - 1) / 8⌉) uint8
        A bit for each node, in preorder, 1 for a leaf.
    points : (trees, n) int32
        The row in each leaf.
    dimensions : (trees, n - 1) uint16 or int32
        What each other node divides by.
    values : (trees, n - 1) float32
        Where it divides.
    """

    leaves: Array
    points: Array
    dimensions: Array
    values: Array

    name = "kdtree"
    _record = np.dtype([("what", "<i4"), ("value", "<f4"), ("leaf", "u1")])

    @classmethod
    def read(cls, file: Reader, rows: int, dim: int) -> KDTrees:
        """Read what the library wrote."""
        (trees,) = struct.unpack("=i", file.take(4))
        nodes = 2 * rows - 1
        made = cls(
            *(np.empty((trees, held[1] or 0), kind) for _, kind, held in cls.arrays(rows, dim))
        )
        for tree in range(trees):
            held = np.frombuffer(file.take(nodes * cls._record.itemsize), cls._record)
            leaf = held["leaf"].astype(bool)
            if leaf.sum() != rows:
                raise BackendError(f"flann wrote a tree of {leaf.sum()} leaves for {rows} rows")
            made.leaves[tree] = np.packbits(leaf)
            made.points[tree] = held["what"][leaf]
            made.dimensions[tree] = held["what"][~leaf]
            made.values[tree] = held["value"][~leaf]
        return made

    @staticmethod
    def arrays(rows: int, dim: int) -> tuple[_Wanted, ...]:
        """Return name, type and shape of each array, None for any number."""
        narrow = "u2" if dim <= 1 << 16 else "i4"
        return (
            ("leaves", "u1", (None, (2 * rows + 6) // 8)),
            ("points", "i4", (None, rows)),
            ("dimensions", narrow, (None, rows - 1)),
            ("values", "f4", (None, rows - 1)),
        )

    def wrong(self, rows: int, dim: int) -> str:
        """Return what is not as it must be, or nothing."""
        trees = {len(self.leaves), len(self.points), len(self.dimensions), len(self.values)}
        if len(trees) != 1 or not 1 <= min(trees) <= _MOST_TREES:
            return f"arrays of {' and '.join(map(str, sorted(trees)))} trees"
        for tree in range(len(self.points)):
            leaf = self._leaf(tree, rows)
            said = _wrong_shape(leaf, 2, rows) or _wrong_rows(self.points[tree], rows)
            dimensions = self.dimensions[tree]
            if not said and rows > 1 and not 0 <= dimensions.min() <= dimensions.max() < dim:
                said = f"a node divides by a dimension that is none of {dim}"
            if said:
                return f"tree {tree}: {said}"
        return ""

    def write(self, file: Any, rows: int, dim: int) -> None:
        """Write what the library reads; `wrong` must have said nothing."""
        with Writer(file, KDTREE, rows, dim) as out:
            out.block(struct.pack("=i", len(self.points)))
            record = np.zeros(2 * rows - 1, self._record)
            for tree in range(len(self.points)):
                leaf = self._leaf(tree, rows)
                record["leaf"] = leaf
                record["what"][leaf] = self.points[tree]
                record["what"][~leaf] = self.dimensions[tree]
                record["value"][~leaf] = self.values[tree]
                out.blocks(record.data.cast("B"), self._record.itemsize)

    def _leaf(self, tree: int, rows: int) -> NDArray[np.bool_]:
        return np.unpackbits(self.leaves[tree], count=2 * rows - 1).astype(bool)


@dataclass
class KMeansTree:
    """A k-means tree of n vectors: some of them in each leaf, `branching` children elsewhere.

    Attributes
    ----------
    leaves : (nodes,) uint8
        1 for a leaf; in preorder, as all that follow.
    sizes : (nodes,) int32
        Vectors below each node.
    centers : (nodes, d) float32
    spreads : (nodes, 2) float32
        Radius and variance.
    points : (n,) int32
        The rows in the leaves, one leaf behind the other.
    border : (1,) float32
        How much a wide cluster is preferred in a search.
    """

    leaves: Array
    sizes: Array
    centers: Array
    spreads: Array
    points: Array
    border: Array

    name = "kmeans"
    # Branching, iterations, bytes counted, border, how centers are chosen.
    _start = struct.Struct("=i i i f i")
    # Behind the center: radius, variance, size, number of children.
    _node = struct.Struct("=f f i Q")

    @classmethod
    def read(cls, file: Reader, rows: int, dim: int) -> KMeansTree:
        """Read what the library wrote."""
        branching, _, _, border, _ = cls._start.unpack(file.take(cls._start.size))
        centers, spreads, sizes, leaves = [], [], [], []
        points = np.empty(rows, np.int32)
        open_, at = 1, 0
        # How long a node is, it says itself: one after the other. Building took far longer.
        while open_:
            centers.append(file.take(4 * dim))
            radius, variance, size, children = cls._node.unpack(file.take(cls._node.size))
            spreads.append((radius, variance))
            leaves.append(not children)
            open_ += children - 1
            if children not in (0, branching):
                raise BackendError(f"flann wrote a node of {children} children, not {branching}")
            if not children:
                (size,) = struct.unpack("=Q", file.take(8))
                points[at : at + size] = np.frombuffer(file.take(8 * size), np.uint64)
                at += size
            sizes.append(size)
        return cls(
            np.array(leaves, np.uint8),
            np.array(sizes, np.int32),
            np.frombuffer(b"".join(centers), np.float32).reshape(-1, dim),
            np.array(spreads, np.float32),
            points,
            np.array([border], np.float32),
        )

    @staticmethod
    def arrays(rows: int, dim: int) -> tuple[_Wanted, ...]:
        """Return name, type and shape of each array, None for any number."""
        return (
            ("leaves", "u1", (None,)),
            ("sizes", "i4", (None,)),
            ("centers", "f4", (None, dim)),
            ("spreads", "f4", (None, 2)),
            ("points", "i4", (rows,)),
            ("border", "f4", (1,)),
        )

    @property
    def branching(self) -> int:
        """Children of a node, as its shape says; 2 if it is one leaf."""
        inner = int((self.leaves == 0).sum())
        return (len(self.leaves) - 1) // inner if inner else 2

    def wrong(self, rows: int, dim: int) -> str:
        """Return what is not as it must be, or nothing."""
        nodes = len(self.leaves)
        if not 1 <= nodes == len(self.sizes) == len(self.centers) == len(self.spreads):
            return "its arrays are of different numbers of nodes"
        leaf = np.array(self.leaves, bool)
        said = "a node has one child" if self.branching < 2 else ""
        said = said or _wrong_shape(leaf, self.branching) or _wrong_rows(self.points, rows)
        held = self.sizes[leaf].astype(np.int64)
        if not said and (held.min() < 1 or held.sum() != rows):
            said = f"its leaves do not share the {rows} rows"
        return said

    def write(self, file: Any, rows: int, dim: int) -> None:
        """Write what the library reads; `wrong` must have said nothing."""
        leaf = np.array(self.leaves, bool)
        held = np.where(leaf, self.sizes, 0).astype(np.int64)
        fixed = dim + self._node.size // 4
        lengths = 4 * (fixed + np.where(leaf, 2 + 2 * held, 0))
        starts, points = _starts(lengths), _starts(held)
        with Writer(file, KMEANS, rows, dim) as out:
            out.block(self._start.pack(self.branching, 1, 0, float(self.border[0]), 0))
            first = 0
            while first < len(leaf):
                last = int(np.searchsorted(starts, starts[first] + BLOCK, "right")) - 1
                span = slice(first, max(last, first + 1))
                rows_here = self.points[points[span.start] : points[span.stop]]
                words = self._words(span, leaf[span], rows_here, fixed)
                _write_nodes(out, words.data.cast("B"), 4 * dim, self._node.size)
                first = span.stop

    def _words(
        self, span: slice, leaf: NDArray[np.bool_], points: Array, fixed: int
    ) -> NDArray[np.uint32]:
        """Return some nodes as numbers of four bytes."""
        sizes = np.asarray(self.sizes[span], np.int64)
        held = sizes[leaf]
        starts = _starts(fixed + np.where(leaf, 2 + 2 * sizes, 0))
        words = np.zeros(int(starts[-1]), np.uint32)
        places = starts[:-1, None] + np.arange(fixed)
        words[places[:, : fixed - 3]] = np.hstack(
            [np.asarray(one[span]).view(np.uint32) for one in (self.centers, self.spreads)]
        )
        words[places[:, -3]] = np.asarray(self.sizes[span]).view(np.uint32)
        words[places[:, -2]] = np.where(leaf, 0, self.branching)
        behind = starts[:-1][leaf] + fixed
        # A leaf's rows stand behind their number, in eight bytes each, as it does.
        words[behind] = held
        within = np.arange(len(points)) - np.repeat(_starts(held)[:-1], held)
        words[np.repeat(behind + 2, held) + 2 * within] = points
        return words


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)])


def _write_nodes(out: Writer, nodes: memoryview, center: int, node: int) -> None:
    """Write nodes that fit into one block together, or one that does not."""
    if len(nodes) <= BLOCK:
        out.block(nodes)
        return
    # The library reads a center of more than a block in whole blocks and what is left.
    out.blocks(nodes[:center], BLOCK)
    out.block(nodes[center : center + node])
    out.blocks(nodes[center + node :], 8)


def _wrong_rows(points: Array, rows: int) -> str:
    """Refuse rows that there are not, and those that are named twice."""
    if points.min() < 0 or points.max() >= rows:
        return f"a leaf holds a row that is none of {rows}"
    seen = np.zeros(rows, bool)
    seen[points] = True
    return "" if seen.all() else "its leaves hold a row twice"


def _wrong_shape(leaf: NDArray[np.bool_], branching: int, leaves: int | None = None) -> str:
    """Tell whether nodes in preorder are one tree, and how high it is.

    Each node takes one open place and opens one for each child: at its end, and not before, none is
    open. A node's descendants go on until fewer places are open than at the node itself.
    """
    inner = ~leaf
    if leaves is not None and len(leaf) - int(inner.sum()) != leaves:
        return f"it has {len(leaf) - int(inner.sum())} leaves, not {leaves}"
    left = np.cumsum(np.where(leaf, -1, branching - 1), dtype=np.int64)
    if left[-1] != -1 or (left[:-1] < 0).any():
        return "its nodes are not one tree"
    high = f"it is more than {LEVELS} levels high"
    before = np.concatenate([[0], left[:-1]])
    most = int(before.max())
    if most > LEVELS * (branching - 1):
        return high
    # Of nodes with equally many open places, each ends with the next leaf. Small numbers sort faster.
    order = np.argsort(before.astype(np.int16 if most < 1 << 15 else np.int64), kind="stable")
    leaf_there = leaf[order]
    following: NDArray[np.int64] = np.cumsum(leaf_there) - leaf_there
    ends = order[leaf_there][following[~leaf_there]]
    change = np.zeros(len(leaf) + 1, np.int64)
    change[1:] = inner
    change -= np.bincount(ends + 1, minlength=len(leaf) + 1)
    return high if int(np.cumsum(change).max()) >= LEVELS else ""


def save_tree(folder: Path, tree: KDTrees | KMeansTree) -> None:
    """Save a tree's arrays.

    Raises
    ------
    BackendError
        `load_tree` would not take it: it is too high.
    """
    rows = tree.points.shape[-1]
    said = tree.wrong(rows, _DIMENSIONS)
    if said:
        raise BackendError(f"flann: its {tree.name} cannot be saved: {said}")
    for name, _, _ in tree.arrays(rows, _DIMENSIONS):
        np.save(folder / f"{tree.name}-{name}.npy", getattr(tree, name), allow_pickle=False)


def load_tree(folder: Path, kind: str, rows: int, dim: int) -> KDTrees | KMeansTree:
    """Map a tree's arrays, and look at every number that the library would follow.

    Raises
    ------
    ArtifactError
    """
    cls: type[KDTrees | KMeansTree] = KDTrees if kind == "kdtree" else KMeansTree
    tree = cls(
        *(
            read_array(folder / f"{kind}-{name}.npy", shape, dtype)
            for name, dtype, shape in cls.arrays(rows, dim)
        )
    )
    said = tree.wrong(rows, dim)
    if said:
        raise ArtifactError(f"{folder}/{kind}-*.npy: {said}; damaged, make the index again")
    return tree


def read_array(path: Path, shape: tuple[int | None, ...], dtype: str) -> Array:
    """Map an array of a file that may hold anything.

    Raises
    ------
    ArtifactError
        It is not there, no array, or of another shape or type.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: not there; damaged, or saved by an older vwkit-flann: build the index again"
        ) from None
    except Exception as error:  # whatever a made-up header leads to
        said = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path}: not a readable array: {said}") from None
    fits = len(array.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        wanted = " × ".join("any" if one is None else str(one) for one in shape)
        raise ArtifactError(
            f"{path}: holds {array.dtype} of shape {array.shape} where {np.dtype(dtype)} of shape "
            f"{wanted} is needed; damaged, make it again"
        )
    return array
