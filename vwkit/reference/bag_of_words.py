"""Images as histograms of visual words.

Sivic, Zisserman 2003, "Video Google: a text retrieval approach to object matching in videos".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import DataError, ParameterError
from vwkit.reference import search as brute_force
from vwkit.reference.transforms import l2_norm

__all__ = ["WEIGHTINGS", "bag_of_words", "histogram", "idf", "search", "tf_idf"]

WEIGHTINGS = ("tf", "tf-idf", "binary")


def histogram(words: ArrayLike, k: int) -> NDArray[np.int64]:
    """Return how often each of the k words occurs.

    Parameters
    ----------
    words : (n,) int
        From 0 to k - 1; n may be 0.
    k : int

    Returns
    -------
    (k,) int64

    Raises
    ------
    DataError
        A word outside the vocabulary.
    """
    counts = np.zeros(k, np.int64)
    for word in np.asarray(words).tolist():
        if not 0 <= word < k:
            raise DataError(f"word {word} is not in a vocabulary of {k} words (0 to {k - 1})")
        counts[int(word)] += 1
    return counts


def idf(words_per_image: Sequence[ArrayLike], k: int) -> NDArray[np.float64]:
    """Return log(N / n_w): N images, of which n_w hold the word; 0 for a word in no image.

    Parameters
    ----------
    words_per_image : sequence of (n_i,) int
    k : int

    Returns
    -------
    (k,) float64
    """
    holding = np.zeros(k, np.int64)
    for words in words_per_image:
        holding += histogram(words, k) > 0
    weights = np.zeros(k)
    for word in range(k):
        if holding[word] > 0:
            weights[word] = np.log(len(words_per_image) / holding[word])
    return weights


def tf_idf(words: ArrayLike, idf: ArrayLike) -> NDArray[np.float64]:
    """Return (count_w / total)·idf_w of one image, divided by its L2 norm; zero stays zero.

    Parameters
    ----------
    words : (n,) int
    idf : (k,) numbers

    Returns
    -------
    (k,) float64
    """
    weights = np.asarray(idf, np.float64)
    counts = histogram(words, len(weights))
    return l2_norm([counts / max(counts.sum(), 1) * weights]).reshape(-1)


def bag_of_words(
    words_per_image: Sequence[ArrayLike],
    k: int,
    weighting: str = "tf-idf",
    idf_weights: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return one L2-normalised row per image; an image without (weighted) words is a zero row.

    Parameters
    ----------
    words_per_image : sequence of (n_i,) int
    k : int
    weighting : {"tf", "tf-idf", "binary"}
        Counts; `tf_idf`; 1 where the word occurs. Each row is then L2-normalised.
    idf_weights : (k,) numbers or None
        For tf-idf: those of the database when the images are queries; by default of these images.

    Returns
    -------
    (N, k) float64

    Raises
    ------
    ParameterError
        Unknown weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ParameterError(f"unknown weighting {weighting!r}; known: {', '.join(WEIGHTINGS)}")
    if idf_weights is None:
        idf_weights = idf(words_per_image, k)
    rows = np.zeros((len(words_per_image), k))
    for image, words in enumerate(words_per_image):
        if weighting == "tf-idf":
            rows[image] = tf_idf(words, idf_weights)
        elif weighting == "tf":
            rows[image] = histogram(words, k)
        else:
            rows[image] = histogram(words, k) > 0
    return l2_norm(rows)


def search(
    queries: ArrayLike,
    vectors: ArrayLike,
    k: int,
    ids: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Search by cosine, leaving out every row that shares no non-zero entry with the query.

    That is what an inverted index finds.

    Parameters
    ----------
    queries : (q, d) numbers
    vectors : (n, d) numbers
    k, ids, allowed
        As for `vwkit.reference.search.search`.

    Returns
    -------
    ids : (q, k) int64
        -1 where there is no neighbour.
    distances : (q, k) float64
        +inf where there is no neighbour.
    """
    q, x = np.asarray(queries), np.asarray(vectors)
    names = np.arange(len(x)) if ids is None else np.asarray(ids, np.int64)
    found_ids = np.full((len(q), k), -1, np.int64)
    found = np.full((len(q), k), np.inf)
    for row, query in enumerate(q):
        shared = names[((x != 0) & (query != 0)).any(axis=1)]
        if allowed is not None:
            shared = np.intersect1d(shared, allowed)
        answer = brute_force.search(query[None], x, k, "cosine", names, shared)
        found_ids[row], found[row] = answer[0][0], answer[1][0]
    return found_ids, found
