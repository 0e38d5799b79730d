"""Product quantization (Jégou, Douze, Schmid 2011, "Product quantization for nearest neighbor search").

A vector of d numbers is cut into m pieces of d/m; each piece is replaced by the number of the
nearest of the ks codewords of its subspace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import ParameterError, ShapeError
from vwkit.reference import lloyd
from vwkit.reference.distances import distances

__all__ = [
    "code_dtype",
    "decode",
    "distortion",
    "encode",
    "symmetric_distance",
    "symmetric_tables",
    "train",
]


def code_dtype(ks: int) -> type[np.uint8 | np.uint16]:
    """Return uint8 for up to 256 codewords per subspace, uint16 for up to 65,536.

    Raises
    ------
    ParameterError
        ks is below 1 or above 65,536.
    """
    if not 1 <= ks <= 65_536:
        raise ParameterError(f"ks is {ks}; a subspace has from 1 to 65536 codewords")
    return np.uint8 if ks <= 256 else np.uint16


def encode(vectors: ArrayLike, codebook: ArrayLike) -> NDArray[np.uint8 | np.uint16]:
    """Return the nearest codeword of each piece of each row, the lowest id on ties.

    Parameters
    ----------
    vectors : (n, d) numbers
    codebook : (m, ks, d/m) numbers

    Returns
    -------
    (n, m) uint8 or uint16

    Raises
    ------
    ShapeError
        d is not m times the codewords' length.
    """
    x, words = np.asarray(vectors), np.asarray(codebook)
    m, ks, width = words.shape
    if x.ndim != 2 or x.shape[1] != m * width:
        raise ShapeError(f"codebook {words.shape} needs vectors (n, {m * width}); got {x.shape}")
    codes = np.empty((len(x), m), code_dtype(ks))
    for part in range(m):
        codes[:, part] = lloyd.assign(x[:, part * width : (part + 1) * width], words[part])
    return codes


def decode(codes: ArrayLike, codebook: ArrayLike) -> NDArray[np.float64]:
    """Return the codewords of each code, joined.

    Parameters
    ----------
    codes : (n, m) int
    codebook : (m, ks, d/m) numbers

    Returns
    -------
    (n, d) float64
    """
    c, words = np.asarray(codes), np.asarray(codebook, np.float64)
    return np.concatenate([words[part][c[:, part]] for part in range(len(words))], axis=1)


def distortion(vectors: ArrayLike, codebook: ArrayLike) -> float:
    """Return the mean over rows of ‖x - decode(encode(x))‖²: summed over d, not averaged.

    Parameters
    ----------
    vectors : (n, d) numbers
    codebook : (m, ks, d/m) numbers
    """
    error = np.asarray(vectors, np.float64) - decode(encode(vectors, codebook), codebook)
    return float((error**2).sum(axis=1).mean())


def symmetric_tables(codebook: ArrayLike) -> NDArray[np.float64]:
    """Return, for each subspace, the squared distance between every two of its codewords.

    Parameters
    ----------
    codebook : (m, ks, d/m) numbers

    Returns
    -------
    (m, ks, ks) float64
    """
    return np.stack([distances(words, words, "l2") for words in np.asarray(codebook)])


def symmetric_distance(
    a_codes: ArrayLike, b_codes: ArrayLike, codebook: ArrayLike
) -> NDArray[np.float64]:
    """Return Σ over subspaces of the table distance: ‖decode(a) - decode(b)‖² ("SDC").

    Parameters
    ----------
    a_codes : (a, m) int
    b_codes : (b, m) int
    codebook : (m, ks, d/m) numbers

    Returns
    -------
    (a, b) float64
        Subspaces are added in order from the first, which fixes the last bit.
    """
    a, b = np.asarray(a_codes), np.asarray(b_codes)
    result = np.zeros((len(a), len(b)))
    for part, table in enumerate(symmetric_tables(codebook)):
        result += table[a[:, part]][:, b[:, part]]
    return result


def train(vectors: ArrayLike, m: int, ks: int, seed: int, iterations: int) -> NDArray[np.float64]:
    """Return a codebook: k-means++ and Lloyd in each subspace by itself.

    Parameters
    ----------
    vectors : (n, d) numbers
        d a multiple of m.
    m, ks : int
    seed : int
        Subspace i draws from the generator seeded with (seed, i).
    iterations : int

    Returns
    -------
    (m, ks, d/m) float64

    Raises
    ------
    ParameterError
        d is not a multiple of m, or ks is out of range.
    """
    x = np.asarray(vectors, np.float64)
    if m < 1 or x.shape[1] % m:
        raise ParameterError(f"m is {m}; it must divide the dimension {x.shape[1]}")
    code_dtype(ks)
    codebook = []
    for part, piece in enumerate(np.split(x, m, axis=1)):
        seeds = lloyd.kmeans_plus_plus(piece, ks, (seed, part))
        codebook.append(lloyd.lloyd(piece, seeds, iterations)[0])
    return np.stack(codebook)
