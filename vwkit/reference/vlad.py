"""Images as the residuals of their descriptors to visual words.

Jégou, Douze, Schmid, Pérez 2010, "Aggregating local descriptors into a compact image
representation"; Arandjelović, Zisserman 2013, "All about VLAD".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError

__all__ = ["residuals", "vlad"]

#: A word whose residuals add up to less than this share of what was added is nothing but rounding.
ROUNDING = 2.0**-40


def residuals(vectors: ArrayLike, words: ArrayLike, centers: ArrayLike) -> NDArray[np.float64]:
    """Return, for each word, the sum of x - c over the descriptors x of the word with center c.

    Parameters
    ----------
    vectors : (n, d) numbers
        n may be 0.
    words : (n,) int
        From 0 to k - 1.
    centers : (k, d) numbers

    Returns
    -------
    (k, d) float64

    Raises
    ------
    DataError
        A word outside the vocabulary.
    """
    c = np.asarray(centers, np.float64)
    sums = np.zeros(c.shape)
    counts = np.zeros(len(c))
    for vector, word in zip(np.asarray(vectors, np.float64), np.asarray(words), strict=True):
        if not 0 <= word < len(c):
            raise DataError(f"word {word} is not in a vocabulary of {len(c)} words")
        sums[word] += vector - c[word]
        counts[word] += 1
    for word in range(len(c)):
        if np.abs(sums[word]).max() <= ROUNDING * counts[word] * np.abs(c[word]).max():
            sums[word] = 0
    return sums


def vlad(
    vectors_per_image: Sequence[ArrayLike],
    words_per_image: Sequence[ArrayLike],
    centers: ArrayLike,
    *,
    ssr: bool = False,
    intra: bool = True,
    l2: bool = True,
) -> NDArray[np.float64]:
    """Return one row per image: its residuals, word by word.

    Parameters
    ----------
    vectors_per_image : sequence of (n_i, d) numbers
    words_per_image : sequence of (n_i,) int
    centers : (k, d) numbers
    ssr : bool
        Replace each number z by sign(z)·√|z|.
    intra : bool
        Then divide each word's part by its L2 norm; zero stays zero.
    l2 : bool
        Then divide the whole by its L2 norm; zero stays zero.

    Returns
    -------
    (N, k·d) float64
    """
    rows = []
    for vectors, words in zip(vectors_per_image, words_per_image, strict=True):
        parts = residuals(vectors, words, centers)
        if ssr:
            parts = np.sign(parts) * np.sqrt(np.abs(parts))
        if intra:
            parts = np.array([_unit(part) for part in parts])
        row = parts.reshape(-1)
        rows.append(_unit(row) if l2 else row)
    k, d = np.asarray(centers).shape
    return np.array(rows).reshape(len(rows), k * d)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
