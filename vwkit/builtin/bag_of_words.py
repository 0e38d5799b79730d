"""Bags of words: an image becomes the weighted histogram of its visual words.

Sivic and Zisserman 2003, "Video Google: a text retrieval approach to object matching in videos".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, Nested, backend
from vwkit.builtin.vocabulary import Vocabulary
from vwkit.clusterer import Clusterer
from vwkit.errors import DataError, ParameterError
from vwkit.featurizer import Featurizer
from vwkit.image import Image
from vwkit.jobs import job
from vwkit.quantizer import Quantizer
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array, Features

__all__ = ["BagOfWords"]


@backend("bag-of-words")
class BagOfWords(Featurizer):
    """One sparse vector per image: how often each visual word occurs, weighted.

    ``tf-idf``: (n_w / n) · log(N / N_w), where n_w of the image's n descriptors are word w, and
    N_w of the N training images have it; ``tf`` without the logarithm; ``binary`` 1 for each word
    that occurs. Each vector has length 1; an image without descriptors is all zeros.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> images = list(np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8))
    >>> bags = vwkit.create("featurizer", "bag-of-words",
    ...                     local={"use": "pixels"}, vocabulary={"use": "lloyd", "k": 5})
    >>> [bag.shape for bag in bags.fit(images).extract(images)]
    [(1, 5), (1, 5), (1, 5)]
    """

    choose = "to find the same place or object again among up to some hundred thousand photos, and to see why: each match shares words."

    trainable = True

    # The trailing underscore keeps the ability `local` apart; the parameter is called `local`.
    local_: Nested[Featurizer] = Field(doc="The local featurizer, such as {use: sift}.")
    vocabulary: Nested[Clusterer | Quantizer] = Field(
        doc="A clusterer that makes the words, or the path of a saved vocabulary."
    )
    weighting: Literal["tf", "tf-idf", "binary"] = Field(
        default="tf-idf", doc="How words are weighted."
    )

    def __post_init__(self) -> None:
        if not self.local_.local:
            raise ParameterError.of(
                "local",
                "a local featurizer is needed (many vectors per image); "
                f"{self.local_.name} gives one",
            )
        if self.local_.consumes == "files":
            raise ParameterError.of("local", f"{self.local_.name} reads files, not images")
        # A vocabulary that was given fitted stays; one that is learned here is learned anew.
        self._given = self.vocabulary._fitted

    @property
    def deterministic(self) -> bool:
        """True when the local featurizer and the vocabulary are."""
        return self.local_.deterministic and self.vocabulary.deterministic

    @property
    def thread_safe(self) -> bool:  # type: ignore[override]
        """As the local featurizer; looking words up takes care of itself."""
        return self.local_.thread_safe

    @property
    def words(self) -> Quantizer:
        """The fitted vocabulary: descriptors → words (n, 1)."""
        vocabulary = self.vocabulary
        if isinstance(vocabulary, Quantizer):
            if vocabulary.m != 1:
                raise ParameterError.of(
                    "vocabulary",
                    f"one word per descriptor is needed; {vocabulary.name} makes {vocabulary.m}",
                )
            return vocabulary
        vocabulary._need_fitted()
        return Vocabulary(clusterer=vocabulary)

    @property
    def dim(self) -> int:
        """Number of words."""
        if not self.vocabulary._fitted and isinstance(self.vocabulary, Clusterer):
            return int(getattr(self.vocabulary, "k", 0))
        return int(self.words.codebook.shape[1])

    @property
    def kind(self) -> str:
        """Bags of one kind of descriptor."""
        return f"bag-of-words of {self.local_.kind}"

    def _fit(self, images: Sequence[Any]) -> None:
        found = [one for one in self.local_.features(images) if isinstance(one, Features)]
        offsets = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(one.vectors) for one in found], out=offsets[1:])
        if offsets[-1] == 0:
            raise DataError(
                f"images: {self.local_.name} found no descriptor in any of {len(found)} images; "
                "nothing to make words of"
            )
        vectors = np.concatenate([one.vectors for one in found])
        stream = Stream.from_array(vectors, offsets=offsets, kind=self.local_.kind)
        if not self._given:
            with_job = job().within("vocabulary")
            from vwkit.jobs import use_job

            with use_job(with_job):
                self.vocabulary.fit(stream)
        self.learn(self.words.encode(vectors)[:, 0], offsets)

    def learn(self, words: Array, offsets: NDArray[np.int64]) -> None:
        """Learn the words' weights from the words of the training images.

        Parameters
        ----------
        words : (n,) integers
        offsets : (images + 1,) int64
        """
        images = len(offsets) - 1
        _, indices, _ = _counts(words, offsets)
        having = np.bincount(indices, minlength=self.dim)
        with np.errstate(divide="ignore"):
            weight = np.where(having > 0, np.log(images / np.maximum(having, 1)), 0.0)
        self._idf = weight.astype(np.float64)
        self._fitted = True

    def weigh(self, words: Array, offsets: NDArray[np.int64]) -> Sparse:
        """Return one weighted, normalised row per image.

        Parameters
        ----------
        words : (n,) integers
        offsets : (images + 1,) int64

        Returns
        -------
        Sparse of shape (images, words)
        """
        indptr, indices, counts = _counts(words, offsets)
        row = np.repeat(np.arange(len(offsets) - 1), np.diff(indptr))
        if self.weighting == "binary":
            values = np.ones(len(counts))
        else:
            values = counts / np.diff(offsets)[row]
        if self.weighting == "tf-idf":
            values = values * self._idf[indices]
        lengths = np.sqrt(np.bincount(row, values**2, minlength=len(offsets) - 1))
        values = (values / np.where(lengths > 0, lengths, 1)[row]).astype(np.float32)
        # A word that every image has weighs nothing; it is not stored.
        kept = values > 0
        kept_per_row = np.bincount(row[kept], minlength=len(offsets) - 1)
        pointers = np.concatenate([[0], np.cumsum(kept_per_row)])
        return Sparse(
            pointers,
            indices[kept].astype(np.int32),
            values[kept].astype(np.float32),
            (len(offsets) - 1, self.dim),
        )

    def _extract(self, images: list[Image]) -> list[Features]:
        local = self.local_._checked(self.local_._extract(images), images)
        found = []
        for one in local:
            words = self.words.encode(one.vectors)[:, 0]
            offsets = np.array([0, len(words)], np.int64)
            found.append(Features(self.weigh(words, offsets), None, one.size))
        return found

    def _state(self) -> dict[str, Array]:
        return {"_idf": self._idf, "_given": np.asarray(self._given)}


def _counts(
    words: Array, offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count each image's words: CSR pointers, sorted words, counts."""
    image = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((words, image))
    image, ordered = image[order], np.asarray(words, np.int64)[order]
    first = np.flatnonzero(
        np.r_[True, (image[1:] != image[:-1]) | (ordered[1:] != ordered[:-1])]
        if len(ordered)
        else np.zeros(0, bool)
    )
    counts = np.diff(np.r_[first, len(ordered)])
    per_image = np.bincount(image[first], minlength=len(offsets) - 1)
    return np.concatenate([[0], np.cumsum(per_image)]), ordered[first], counts
