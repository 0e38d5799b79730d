"""The words of a run: how often each occurs, and patches that show it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ImageError, UnsupportedError
from vwkit.metrics import squared_norms
from vwkit.report.pictures import data_uri, patch
from vwkit.report.words import vocabulary_size, word_counts
from vwkit.run import Words
from vwkit.types import Array, Item
from vwkit_serve.pictures import open_item

__all__ = ["Vocabulary"]

_CHUNK = 1 << 22
#: Places of a word that are looked at for the most typical ones.
_LOOKED_AT = 2000
_PATCH = 112


class Vocabulary:
    """The words of a run's descriptors.

    Parameters
    ----------
    run : Run
    said : Words
        The word of each descriptor.
    max_pixels : int
        Of pictures that are opened for patches.
    """

    def __init__(self, run: Any, said: Words, max_pixels: int) -> None:
        self._words = said.words
        self._offsets = said.offsets
        self._points = said.keypoints
        self._items: list[Item] = run.kept
        self._max_pixels = max_pixels
        self.size = vocabulary_size(run)
        self._lock = threading.Lock()
        self._counts: NDArray[np.int64] | None = None
        self._order: NDArray[np.int64] | None = None
        aggregated = run.has("featurizer.words")
        self._transforms = [] if aggregated else run.transforms
        self._vectors: Array | None = None
        self._centers: Array | None = None
        if self.has_patches:
            self._vectors = run.features.toarray()
            model = run.featurizer.words if aggregated else run.clusterer
            if getattr(model, "has_centers", True):
                self._centers = (model if aggregated else run.vocabulary).codebook[0]

    @property
    def has_patches(self) -> bool:
        """Whether it is known where in which picture each word is."""
        return self._points is not None and len(self._offsets) == len(self._items) + 1

    def counted(self) -> NDArray[np.int64]:
        """Return how often each word occurs, (k,) int64; counted once."""
        with self._lock:
            if self._counts is None:
                self._counts = word_counts(self._words, self.size)
                self._order = np.argsort(-self._counts, kind="stable")
            return self._counts

    def listed(self, offset: int, limit: int, by_count: bool) -> list[int]:
        """Return some words, the most frequent first or by number."""
        counts = self.counted()
        order = self._order if by_count and self._order is not None else np.arange(len(counts))
        return [int(word) for word in order[offset : offset + limit]]

    def patches(self, word: int, limit: int) -> list[dict[str, Any]]:
        """Return the patches that show a word best: near to its center, from different pictures.

        Raises
        ------
        UnsupportedError
            It is not known where the words are.
        """
        if not self.has_patches or self._points is None:
            raise UnsupportedError("it is not known where in the pictures this run's words are")
        places = self._places(word)
        if len(places) == 0:
            return []
        owners = np.searchsorted(self._offsets, places, side="right") - 1
        near = self._distances(word, places)
        order = np.lexsort((places, near, owners))
        turn = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
        chosen = order[np.lexsort((near[order], turn))]
        found: list[dict[str, Any]] = []
        opened: dict[int, Any] = {}
        for i in chosen[: 2 * limit].tolist():
            owner, place = int(owners[i]), int(places[i])
            item = self._items[owner]
            if owner not in opened:
                if len(opened) >= limit:
                    continue  # a few pictures are enough to open for one word
                try:
                    opened[owner] = open_item(item, self._max_pixels)
                except ImageError:
                    opened[owner] = None  # gone: the word is shown without it
            if opened[owner] is None:
                continue
            point = np.nan_to_num(np.asarray(self._points[place], np.float64), posinf=0, neginf=0)
            uri = data_uri(patch(opened[owner], point.tolist(), _PATCH))
            where = {"x": point[0], "y": point[1], "scale": point[2], "angle": point[3]}
            found.append({"row": item.row, "id": item.id, **where, "image": uri})
            if len(found) == limit:
                break
        return found

    def _places(self, word: int) -> NDArray[np.int64]:
        """Find where a word is, a chunk at a time: there may be more than fit in memory."""
        found: list[NDArray[np.int64]] = []
        for start in range(0, len(self._words), _CHUNK):
            chunk = np.asarray(self._words[start : start + _CHUNK])
            found.append(np.flatnonzero(chunk == chunk.dtype.type(word)) + start)
        places = np.concatenate(found) if found else np.zeros(0, np.int64)
        if len(places) > _LOOKED_AT:
            places = places[np.linspace(0, len(places) - 1, _LOOKED_AT).astype(np.int64)]
        return places

    def _distances(self, word: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
        if self._vectors is None or self._centers is None:
            return np.zeros(len(places))
        vectors = self._vectors[places]
        for transform in self._transforms:
            vectors = transform.transform(vectors)
        difference = vectors.astype(np.float32) - self._centers[word]
        return np.asarray(squared_norms(difference), np.float64)
