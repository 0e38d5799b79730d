"""VLAD: an image becomes the sums of its descriptors' residuals to their visual words.

Jégou, Douze, Schmid, Pérez 2010, "Aggregating local descriptors into a compact image
representation"; Jégou, Perronnin, Douze, Sánchez, Pérez, Schmid 2012, "Aggregating local image
descriptors into compact codes"; Arandjelović, Zisserman 2013, "All about VLAD".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, backend
from vwkit.builtin.aggregated import Aggregated
from vwkit.types import Array

__all__ = ["Vlad"]

# Residuals that cancel leave rounding errors of about 2⁻⁵³ of what was added; intra-normalisation
# would blow them up to a whole unit. The reference has the same limit.
ROUNDING = 2.0**-40


@backend("vlad")
class Vlad(Aggregated):
    """One vector per image: for each visual word, the sum of x − c over its descriptors x.

    c is the word's center. With k words of d dimensions that is k·d numbers (float32), word by word.
    Then, each where it is switched on: `ssr` (the signed square root of each number), `intra` (each
    word's part gets length 1, so that a repeated pattern cannot drown the others) and `l2` (the
    whole vector gets length 1). An image without descriptors is all zeros.

    A small vocabulary is enough: 16 to 256 words. What comes out is long and is usually shortened
    by the transform pca.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> images = list(np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8))
    >>> vlad = vwkit.create("featurizer", "vlad",
    ...                     local={"use": "pixels"}, vocabulary={"use": "lloyd", "k": 5})
    >>> vlad.fit(images).vectors(images).shape
    (3, 15)
    """

    choose = "a short fingerprint of a photo from local features, without a network: copies and views of one place, up to many millions of photos."

    needs_vectors = True

    ssr: bool = Field(
        default=False, doc="Whether to take the signed square root of each number (Jégou 2012)."
    )
    intra: bool = Field(
        default=True,
        doc="Whether to give each word's part length 1 (Arandjelović, Zisserman 2013).",
    )
    l2: bool = Field(default=True, doc="Whether to give the whole vector length 1.")

    @property
    def dim(self) -> int:
        """Words times dimensions of a descriptor."""
        return self.word_count * self.local_.dim

    def _aggregate(
        self, words: Array, offsets: NDArray[np.int64], vectors: Array | None
    ) -> NDArray[np.float32]:
        centers = self.words.codebook[0].astype(np.float64)
        images, (k, d) = len(offsets) - 1, centers.shape
        out = np.zeros((images, k, d))
        if vectors is not None and len(vectors):
            # Sorted by image and word; the sort is stable, so each sum has a fixed order.
            place = np.repeat(np.arange(images), np.diff(offsets)) * k + words.astype(np.int64)
            order = np.argsort(place, kind="stable")
            place = place[order]
            first = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
            counts = np.diff(np.r_[first, len(place)])[:, None]
            # Whole numbers are added exactly.
            wide = np.int64 if vectors.dtype.kind in "iu" else np.float64
            sums = np.add.reduceat(vectors[order], first, axis=0, dtype=wide)
            word = place[first] % k
            parts = sums - counts * centers[word]
            size = np.abs(centers[word]).max(axis=1, keepdims=True, initial=0)
            parts[np.abs(parts).max(axis=1) <= ROUNDING * (counts * size)[:, 0]] = 0
            if self.ssr:
                parts = np.sign(parts) * np.sqrt(np.abs(parts))
            if self.intra:
                parts = _normalised(parts)
            out.reshape(-1, d)[place[first]] = parts
        flat = out.reshape(images, k * d)
        return (_normalised(flat) if self.l2 else flat).astype(np.float32)


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    # Divided by the largest number first: the square of a small one could vanish.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    largest[largest == 0] = 1
    scaled = rows / largest
    lengths = np.sqrt(np.add.reduce(scaled * scaled, axis=1, keepdims=True))
    lengths[lengths == 0] = 1
    found: NDArray[np.float64] = scaled / lengths
    return found
