"""Whether the official Oxford5k words belong to the descriptors they are put beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vwkit.errors import DataError, ShapeError
from vwkit.formats.base import VectorFile

__all__ = ["Alignment", "verify_alignment"]

# A SIFT descriptor is 16 cells of 8 directions. The 12 bytes put first instead of last would move one
# whole cell to another descriptor, and half of a second one.
_CELL = 8
# SIFT of photographs with vocabularies of 20 to 100 descriptors a word: 0.53 to 0.65 in the worst
# cell; with wrong words, or in a cell of another descriptor: 0.97 to 1.07.
_RELATED = 0.8


@dataclass(frozen=True)
class Alignment:
    """Whether descriptors and official words belong together.

    Attributes
    ----------
    within : float
        Mean squared distance of two descriptors with the same word.
    random : float
        Mean squared distance of the same descriptors in random pairs.
    worst : float
        The largest ratio of the two over the 16 cells of the descriptor.
    pairs : int
        Pairs that were compared.
    ok : bool
        Whether descriptors of a word are clearly alike, in every cell.
    """

    within: float
    random: float
    worst: float
    pairs: int
    ok: bool


def verify_alignment(
    vectors: VectorFile | npt.NDArray[Any],
    words: npt.NDArray[np.integer[Any]],
    *,
    pairs: int = 5000,
    seed: int = 0,
) -> Alignment:
    """Test whether row i of a descriptor file has word i.

    Descriptors that share a word are nearer to each other than random ones. If the images are in
    another order the words are those of other descriptors, and the distances are equal. If the 12
    spare bytes are the file's first instead of its last, 116 of 128 components are still right: that
    is why every cell of the descriptor is tested by itself. One image out of place among thousands
    goes unnoticed.

    Parameters
    ----------
    vectors : VectorFile or ndarray, shape (n, dim)
    words : ndarray of int, shape (n,)
        Official words of all rows.
    pairs : int
        How many pairs to compare; about twice as many rows are read.
    seed : int
        Which pairs are drawn.

    Raises
    ------
    ShapeError
        If there is not one word for every row.
    DataError
        If fewer than 100 pairs share a word: nothing can be said then.
    """
    rows = vectors.rows if isinstance(vectors, VectorFile) else len(vectors)
    if words.shape != (rows,):
        raise ShapeError(f"verify_alignment needs a word for each of {rows} rows: {words.shape}")
    rng = np.random.default_rng(seed)
    left, right = _pairs_of_one_word(words, pairs, rng)
    if len(left) < 100:
        raise DataError(
            f"only {len(left)} pairs of descriptors share a word; at least 100 are needed to tell "
            "whether words and descriptors belong together"
        )
    wanted, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    taken = vectors.take(wanted) if isinstance(vectors, VectorFile) else vectors[wanted]
    a, b = np.split(taken.astype(np.float64)[place], 2)
    # The same rows in other pairs: whatever is peculiar to these rows is in both figures.
    other = rng.permutation(len(b))
    within, random = _by_cell(a, b), _by_cell(a, b[other])
    ratio = np.divide(within, random, out=np.ones_like(within), where=random > 0)
    return Alignment(
        within=float(within.sum()),
        random=float(random.sum()),
        worst=float(ratio.max()),
        pairs=len(left),
        ok=bool(ratio.max() < _RELATED),
    )


def _pairs_of_one_word(
    words: npt.NDArray[np.integer[Any]], pairs: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw rows, and for each another row of the same word."""
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    start = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    size = np.diff(np.append(start, len(ordered)))
    start, size = start[size > 1], size[size > 1]
    if not len(size):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    word = rng.choice(len(size), min(pairs, len(size)), replace=False)
    first = rng.integers(0, size[word])
    # Any other member: a step from 1 to size - 1 around the circle.
    second = (first + rng.integers(1, size[word])) % size[word]
    return order[start[word] + first], order[start[word] + second]


def _by_cell(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each cell's part of the mean squared distance of paired rows."""
    square = np.mean((a - b) ** 2, axis=0)
    return np.add.reduceat(square, np.arange(0, square.size, _CELL))
