"""A run that is being served: everything loaded, what it can do, and why not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.errors import RunError, UnsupportedError, VwkitError
from vwkit.image import Image
from vwkit.report.words import words_of
from vwkit.run import Run
from vwkit.run_folder import MANIFEST
from vwkit.types import Array, Features, Item, Matches
from vwkit_serve.matching import Correspondences, agreeing, pairs_by_descriptor, pairs_by_word
from vwkit_serve.pictures import Pictures
from vwkit_serve.vocabulary import Vocabulary

__all__ = ["Served", "Side", "signature"]

#: Uploads whose features are remembered, so that a result is opened without extracting them again.
_REMEMBERED = 16
_LOOKED_AT = 200
_FIELDS = 40


def signature(folder: Path) -> tuple[int, int, int] | None:
    """Return what tells one run in a folder from the next, or None where there is none."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(frozen=True)
class Side:
    """One of two pictures that are compared.

    Attributes
    ----------
    points : (n, 5) float32
    words : (n,) int64 or None
    vectors : (n, d) or None
    size : (int, int)
    """

    points: Array
    words: Array | None
    vectors: Array | None
    size: tuple[int, int]


class Served:
    """A finished run with all its parts loaded, so that a later change of its folder is no matter.

    Parameters
    ----------
    run : Run
    max_pixels : int
        Of pictures that are decoded.

    Attributes
    ----------
    can : dict of str to bool
        ``search``, ``matches``, ``clusters``, ``words``, ``patches``.
    why_not : dict of str to str
        For what it cannot: one sentence.
    """

    def __init__(self, run: Run, max_pixels: int) -> None:
        self.signature = signature(run.folder)
        self.run = run
        self.items = run.items
        self.by_row = {item.row: item for item in run.items}
        self._row_by_id = {text(item.id): item.row for item in run.items}
        self.kept_rows = [item.row for item in run.kept]
        self._places = {row: i for i, row in enumerate(self.kept_rows)}
        self.pictures = Pictures(max_pixels)
        self.vocabulary: Vocabulary | None = None
        self.can: dict[str, bool] = {}
        self.why_not: dict[str, str] = {}
        self._extracting: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._remembered: OrderedDict[bytes, Side] = OrderedDict()
        self._lock = threading.Lock()
        self._try("search", self._open_search)
        self._try("words", lambda: self._open_words(max_pixels))
        self._try("patches", self._open_patches)
        self._try("matches", self._open_matches)
        self._try("clusters", lambda: (run.clusters, run.unclustered))

    def _try(self, what: str, open_part: Callable[[], object]) -> None:
        try:
            open_part()
        except RunError:
            raise  # the folder changes just now: nothing of it is served half
        except VwkitError as error:
            self.why_not[what] = str(error).removeprefix(f"{self.run.folder}: ")
        self.can[what] = what not in self.why_not

    # Opening: what a request would load is loaded here

    def _open_search(self) -> None:
        run = self.run
        if not run.has("featurizer"):
            raise UnsupportedError(
                "this run began from vectors, so it is searched by vectors, from Python: "
                "run.search(array)"
            )
        if not run.has("index"):
            raise UnsupportedError("this run has no index; give its spec one and run it again")
        featurizer = run.featurizer
        _ = run.index, run.transforms, run.rerankers, run._by_id, run._by_row
        _ = (run.features, run._feature_offsets) if featurizer.local else run.vectors
        _ = run.features if run.rerankers else None
        if not featurizer.thread_safe:
            self._extracting = threading.RLock()
        # Libraries are loaded and set up by the first picture; let that not be a user's.
        with contextlib.suppress(VwkitError):
            next(iter(featurizer.features([_first_picture()])), None)

    def _open_words(self, max_pixels: int) -> None:
        said = words_of(self.run)
        if said is None:
            raise UnsupportedError(
                "this run has no visual words; they come with local features and a vocabulary"
            )
        self.vocabulary = Vocabulary(self.run, said, max_pixels)

    def _open_patches(self) -> None:
        if self.vocabulary is None:
            raise UnsupportedError("this run has no visual words")
        if not self.vocabulary.has_patches:
            raise UnsupportedError("it is not known where in the pictures this run's words are")

    def _open_matches(self) -> None:
        run = self.run
        if not self.can["search"]:
            raise UnsupportedError("without a search there is nothing to compare")
        aggregated = run.has("featurizer.local")
        if not (aggregated or run.featurizer.local):
            raise UnsupportedError(
                "this run describes each picture as a whole, so there are no points to compare"
            )
        if "keypoints" not in run.features.columns or run.features.offsets is None:
            raise UnsupportedError(f"{run.featurizer.name} does not tell where its features are")
        self._local = run.features.toarray()
        self._points = run.features.columns["keypoints"]
        self._offsets = run.features.offsets
        self._words: Array | None = run.words.words if self.vocabulary is not None else None
        if self._words is not None and len(self._words) != len(self._local):
            self._words = None  # of whole pictures, not of descriptors

    # Items

    def row_of(self, name: str) -> int | None:
        """Return the row of an item by its id."""
        return self._row_by_id.get(name)

    def find(self, part: str, skipped: bool) -> list[int]:
        """Return the rows of items whose id contains a text, in either case."""
        wanted = part.casefold()
        return [
            item.row
            for item in self.items
            if (skipped or item.status == "ok") and (not wanted or wanted in item.id.casefold())
        ]

    def cluster_of(self, item: Item) -> int | None:
        """Return the cluster of an item, −1 if it is in none; None without clusters."""
        if not self.can["clusters"] or item.status != "ok":
            return None
        return int(self.run.item_labels[self._places[item.row]])

    # Search

    def need(self, what: str) -> None:
        """Raise an error that says why the run cannot do something."""
        if not self.can[what]:
            raise UnsupportedError(self.why_not[what])

    def search_item(self, item: Item, k: int, where: str = "") -> Matches:
        """Find what is most like an item, among those whose metadata fulfil `where`."""
        self.need("search")
        return self.run.search(item.id, k, where=where or None)

    def search_picture(self, picture: Image, k: int, where: str = "") -> Matches:
        """Find what is most like a picture, among those whose metadata fulfil `where`."""
        self.need("search")
        with self._extracting:
            return self.run.search(picture, k, where=where or None)

    def fields(self) -> list[str]:
        """Return the names of the first items' metadata, by which a search can be narrowed."""
        found = {text(key): None for item in self.run.kept[:_LOOKED_AT] for key in item.metadata}
        return list(found)[:_FIELDS]

    # Matches

    def side_of_item(self, item: Item) -> Side:
        """Return an item's points, words and descriptors."""
        self.need("matches")
        place = self._places[item.row]
        rows = slice(int(self._offsets[place]), int(self._offsets[place + 1]))
        words = None if self._words is None else _signed(self._words[rows])
        points = np.asarray(self._points[rows])
        return Side(points, words, self._local[rows], item.size or _spanned(points))

    def side_of_picture(self, body: bytes, decode: Callable[[], Image]) -> Side:
        """Return an upload's points, words and descriptors; the last few are remembered."""
        self.need("matches")
        key = hashlib.sha256(body).digest()
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return self._remembered[key]
        picture = decode()
        with self._extracting:
            side = self._extracted(self.run.local_features(picture), picture.size)
        with self._lock:
            self._remembered[key] = side
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return side

    def _extracted(self, found: Features, size: tuple[int, int]) -> Side:
        points = np.zeros((0, 5), np.float32) if found.keypoints is None else found.keypoints
        vectors = found.vectors[: len(points)]
        if self._words is None:
            return Side(points, None, vectors, size)
        if self.run.has("featurizer.words"):
            model: Any = self.run.featurizer
            words = model.words.encode(vectors)[:, 0]
        else:
            moved = vectors
            for transform in self.run.transforms:
                moved = transform.transform(moved)
            words = self.run.vocabulary.encode(moved)[:, 0]
        return Side(points, words.astype(np.int64), None, size)

    def compare(self, query: Side, other: Side) -> Correspondences:
        """Find which points of two pictures belong together."""
        if query.words is not None and other.words is not None:
            pairs = pairs_by_word(query.words, other.words)
        elif query.vectors is not None and other.vectors is not None:
            pairs = pairs_by_descriptor(
                query.vectors, other.vectors, query.points[:, 4], other.points[:, 4]
            )
        else:
            pairs = np.zeros((0, 2), np.int64)
        return agreeing(pairs, query.points, other.points, other.size)


def _first_picture() -> Array:
    """Return a picture with some structure, (64, 64, 3) uint8."""
    steps = np.arange(64)
    pattern = ((steps[:, None] * 7) ^ (steps[None, :] * 5)) % 256
    return np.repeat(pattern[:, :, None], 3, axis=2).astype(np.uint8)


def _signed(words: Array) -> Array:
    """Return words as signed numbers: what is in no cluster is −1 again."""
    return np.asarray(words).astype(np.int32).astype(np.int64)


def _spanned(points: Array) -> tuple[int, int]:
    """Guess a picture's size from its points, where it was not noted."""
    if len(points) == 0:
        return 1, 1
    right, bottom = np.nan_to_num(points[:, :2], posinf=0, neginf=0).max(axis=0)
    return max(1, int(right) + 1), max(1, int(bottom) + 1)


def text(name: str) -> str:
    """Return a name that can be sent: what is not Unicode is spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


def plain(value: Any) -> Any:
    """Return data of a foreign file as strict JSON: NaN and infinity become null."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
