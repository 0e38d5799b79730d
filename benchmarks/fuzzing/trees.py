"""Targets: the numbers of FLANN's trees, which its library follows without looking.

A changed artifact is mostly refused before its trees are looked at. Here all else is right.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.saved import vectors
from benchmarks.fuzzing.target import Wrong, target

_ROWS = vectors().astype(np.float32)
_KINDS: dict[str, dict[str, Any]] = {
    "kdtree": {"trees": 2},
    "kmeans": {"algorithm": "kmeans", "branching": 3},
}
_NEEDS = ("pyflann_ibeis", "lz4")


@functools.cache
def _arrays(kind: str) -> dict[str, Any]:
    """Return the arrays of a tree that the library built."""
    from vwkit_flann import Flann

    place = Path(tempfile.mkdtemp("", "vwkit-fuzz-trees-"))
    try:
        Flann(**_KINDS[kind]).build(_ROWS)._save(place)
        found = {path.stem: np.load(path) for path in sorted(place.glob(f"{kind}-*.npy"))}
    finally:
        shutil.rmtree(place)
    return found


def _places() -> list[tuple[str, str]]:
    return [(kind, name) for kind in _KINDS for name in _arrays(kind)]


def _seeds(folder: Path) -> list[bytes]:
    return [
        bytes([at]) + _arrays(kind)[name].tobytes() for at, (kind, name) in enumerate(_places())
    ]


def _searched(folder: Path, kind: str, checks: int) -> Any:
    from vwkit_flann_library import Part
    from vwkit_flann_trees import load_tree

    tree = load_tree(folder, kind, *_ROWS.shape)
    part = Part.loaded(tree, _ROWS)
    return part.search(_ROWS[:5].copy(), 8, {"checks": checks, "cores": 1})


@target("flann-arrays", _seeds, cheap=False, guided=False, needs=_NEEDS,
        words=tuple(n.to_bytes(4, "little", signed=True) for n in (0, 1, 5, 6, 59, 60, 61, 118, 119, -1)))  # fmt: skip
def arrays(data: bytes, folder: Path) -> None:
    """One array of a saved tree with other numbers in it, and as long as its bytes make it."""
    places = _places()
    kind, name = places[(data[0] if data else 0) % len(places)]
    for one, array in _arrays(kind).items():
        changed = array
        if one == name:
            tail = array.shape[1:] if array.ndim > 1 else ()
            width = array.itemsize * int(np.prod(tail, dtype=int))
            # Rarely of another length: that is refused before anything else.
            content = data[1 : 1 + array.nbytes].ljust(array.nbytes, b"\0")
            if len(data) % 7 == 0:
                content = data[1 : 1 + len(data[1:]) // width * width]
            changed = np.frombuffer(content, array.dtype).reshape(-1, *tail)
        np.save(folder / f"{one}.npy", changed)
    _searched(folder, kind, 2**31 - 1)


@target("flann-shapes", lambda _: [b"\x00\x00" + bytes(20), b"\x01\x02" + b"\x55" * 30, b"\x00\x00" + b"\x0f\x33" * 9],
        cheap=False, guided=False, needs=_NEEDS)  # fmt: skip
def shapes(data: bytes, folder: Path) -> None:
    """A tree of any shape, all of whose numbers are right: it must be taken, and all rows found."""
    from vwkit_flann_trees import KDTrees, KMeansTree, save_tree

    rows = len(_ROWS)
    kind, branching = ("kdtree", 2) if not data or data[0] % 2 == 0 else ("kmeans", 2 + data[1:2][0] % 5 if data[1:] else 2)  # fmt: skip
    wanted = np.unpackbits(np.frombuffer(data[2:] or b"\0", np.uint8))
    inner = (
        (rows - 1) // (branching - 1) if kind == "kdtree" else (rows - 1) // (branching - 1) // 2
    )
    leaf: list[bool] = []
    open_ = 1
    while open_:
        bit = bool(wanted[len(leaf) % len(wanted)])
        last = inner > 0 and open_ == 1  # the only open place: a leaf would end the tree too early
        is_leaf = inner == 0 or (bit and not last)
        inner -= not is_leaf
        open_ += -1 if is_leaf else branching - 1
        leaf.append(is_leaf)
    shape, leaves = np.array(leaf), sum(leaf)
    rng = np.random.default_rng(len(data))
    points = rng.permutation(rows).astype(np.int32)
    tree: KDTrees | KMeansTree
    if kind == "kdtree":
        values = rng.normal(100, 90, (1, rows - 1)).astype(np.float32)
        columns = rng.integers(0, _ROWS.shape[1], (1, rows - 1)).astype(np.uint16)
        tree = KDTrees(np.packbits(shape)[None], points[None], columns, values)
    else:
        sizes = np.zeros(len(leaf), np.int32)
        sizes[shape] = np.bincount(np.arange(rows) % leaves, minlength=leaves)
        # Radii without end: the library leaves no cluster out.
        spreads = np.full((len(leaf), 2), 1e9, np.float32)
        centers = rng.normal(100, 90, (len(leaf), _ROWS.shape[1])).astype(np.float32)
        tree = KMeansTree(shape.astype(np.uint8), sizes, centers, spreads, points, np.ones(1, np.float32))  # fmt: skip
    save_tree(folder, tree)
    found, _ = _searched(folder, kind, 2**31 - 1)
    if kind == "kmeans" and (found[:, 0] != np.arange(5)).any():
        raise Wrong(f"rows {found[:, 0].tolist()} where 0 to 4 are nearest")
