"""Featurizers of whole images made from local features and their visual words.

All of them go the same way: local features → a vocabulary → the word of each descriptor → one vector
per image. They differ in the last step, `Aggregated._aggregate`. The steps are public, so that a
pipeline can keep the result of each.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Field, Nested
from vwkit.builtin.image_work import over_images
from vwkit.builtin.vocabulary import Vocabulary
from vwkit.clusterer import Clusterer
from vwkit.errors import ArtifactError, DataError, ParameterError, VwkitError
from vwkit.featurizer import Featurizer
from vwkit.image import Image
from vwkit.jobs import job, use_job
from vwkit.quantizer import Quantizer
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array, Features

__all__ = ["Aggregated"]


class Aggregated(Featurizer):
    """Base of featurizers that make one vector of an image's local features and their words.

    An author writes `_aggregate` and `dim`; where something is learned from the words of the
    training images, `_learn` too.
    """

    trainable = True
    #: Whether `_aggregate` needs the descriptors; otherwise it gets their words only.
    needs_vectors: ClassVar[bool] = False

    # The trailing underscore keeps the ability `local` apart; the parameter is called `local`.
    local_: Nested[Featurizer] = Field(doc="The local featurizer, such as {use: sift}.")
    vocabulary: Nested[Clusterer | Quantizer] = Field(
        doc="A clusterer that makes the words, or the path of a saved vocabulary."
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
    def word_count(self) -> int:
        """Number of words."""
        if not self.vocabulary._fitted and isinstance(self.vocabulary, Clusterer):
            return int(getattr(self.vocabulary, "k", 0))
        return self.words._code_limit()

    @property
    def kind(self) -> str:
        """Vectors of one kind of descriptor."""
        return f"{self.name} of {self.local_.kind}"

    def _check_restored(self) -> None:
        if not self.vocabulary._fitted:
            raise ArtifactError("it lost its vocabulary; damaged, make it again")
        try:
            dim, words = self.local_.dim, self.words
        except VwkitError as error:
            raise ArtifactError(f"its vocabulary cannot be used: {error}") from None
        if words._dim != dim:
            raise ArtifactError(
                f"its words are of {words._dim} dimensions and its descriptors of {dim}; damaged"
            )

    # What an author writes

    def _learn(self, words: Array, offsets: NDArray[np.int64]) -> None:
        """Learn from the words of the training images; by default there is nothing to learn."""

    def _aggregate(
        self, words: Array, offsets: NDArray[np.int64], vectors: Array | None
    ) -> Array | Sparse:
        """Return one row per image; see `aggregate`."""
        raise NotImplementedError(f"{type(self).__name__} must define _aggregate")

    # The steps

    def learn(self, words: Array, offsets: NDArray[np.int64]) -> None:
        """Learn from the words of the training images; the vocabulary is fitted by then.

        Parameters
        ----------
        words : (n,) integers
        offsets : (images + 1,) int64
            Words ``offsets[i]`` to ``offsets[i + 1]`` belong to image i.
        """
        self._learn(words, offsets)
        self._fitted = True

    def aggregate(
        self, words: Array, offsets: NDArray[np.int64], vectors: Array | None = None
    ) -> Iterator[Array | Sparse]:
        """Yield the vectors of some images at a time, one row per image, in order.

        An image's row does not depend on the images beside it.

        Parameters
        ----------
        words : (n,) integers
        offsets : (images + 1,) int64
            Words ``offsets[i]`` to ``offsets[i + 1]`` belong to image i.
        vectors : (n, d) array or memory map
            The descriptors, where `needs_vectors`.

        Raises
        ------
        DataError
            `vectors` is needed.
        """
        self._need_fitted()
        if self.needs_vectors and vectors is None:
            raise DataError(f"{self.name} needs the descriptors, not only their words")
        given = vectors if self.needs_vectors else None
        kernel, shared = self._kernel()
        most = None
        if given is not None:  # such rows are dense, and each thread makes some
            most = max(1, job().memory // (32 * (job().threads + 1) * self.dim))
        yield from over_images(kernel, shared, words, offsets, given, most)

    def _kernel(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return what makes the vectors of some images, as `over_images` takes it.

        A class that needs little of itself for that says so here, and no vocabulary travels.
        """
        return _aggregated, {"featurizer": self._light() if job().distributed else self}

    def _light(self) -> Self:
        """Return a copy that travels without the labels of the rows that made the vocabulary."""
        other = copy.copy(self)
        # It is the same one, though it was fitted: no parameter is changed.
        vars(other)["vocabulary"] = self.vocabulary._light()
        return other

    def vector_of(self, local: Features) -> Array | Sparse:
        """Return the (1, d) vector of an image from its local features.

        Parameters
        ----------
        local : Features
            As the local featurizer gives them.
        """
        vectors = local.vectors
        words = self.words.encode(vectors)[:, 0]
        return next(self.aggregate(words, np.array([0, len(words)], np.int64), vectors))

    # What the role asks for

    def _fit(self, images: Sequence[Any]) -> None:
        # The descriptors of all images may not fit into memory.
        with tempfile.TemporaryFile() as file:
            vectors, offsets = self._written(file, images)
            if offsets[-1] == 0:
                raise DataError(
                    f"images: {self.local_.name} found no descriptor in any of "
                    f"{len(offsets) - 1} images; nothing to make words of"
                )
            stream = Stream.from_array(vectors, offsets=offsets, kind=self.local_.kind)
            if not self._given:
                with use_job(job().within("vocabulary")):
                    self.vocabulary.fit(stream)
            words = np.concatenate([said[:, 0] for said in self.words.encode(stream)])
        self.learn(words, offsets)

    def _written(self, file: IO[bytes], images: Sequence[Any]) -> tuple[Array, NDArray[np.int64]]:
        """Write the descriptors of all images to a file; return them and the images' offsets."""
        counts, form = [0], (self.local_.dim, self.local_.dtype)
        for found in self.local_.features(images):
            if isinstance(found, Features):
                rows = np.ascontiguousarray(found.vectors)
                file.write(rows.tobytes())
                counts.append(len(rows))
                form = rows.shape[1], rows.dtype
        file.flush()
        offsets = np.cumsum(counts, dtype=np.int64)
        if offsets[-1] == 0:
            return np.zeros((0, form[0]), form[1]), offsets
        shape = (int(offsets[-1]), form[0])
        return np.memmap(file, form[1], "r", shape=shape), offsets

    def _extract(self, images: list[Image]) -> list[Features]:
        local = self.local_._checked(self.local_._extract(images), images)
        return [Features(self.vector_of(one), None, one.size) for one in local]

    def _state(self) -> dict[str, Array]:
        return {"_given": np.asarray(self._given)}


def _aggregated(
    words: Array,
    offsets: NDArray[np.int64],
    vectors: Array | None,
    *,
    featurizer: Aggregated,
) -> Array | Sparse:
    return featurizer._aggregate(words, offsets, vectors)
