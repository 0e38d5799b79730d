"""A finished run: its folder opened, its parts loaded when asked for, searched."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import open_artifact
from vwkit.base import Backend, create, load
from vwkit.builtin.vocabulary import Vocabulary
from vwkit.errors import ArtifactError, DataError, RunError, UnsupportedError
from vwkit.featurizer import Featurizer
from vwkit.formats import MissingFileError
from vwkit.hashing import file_sha256
from vwkit.index import Index
from vwkit.items import read_items
from vwkit.jobs import job
from vwkit.lock import holder
from vwkit.quantizer import Quantizer
from vwkit.run_folder import INNER, MANIFEST, finish_commit, read_manifest
from vwkit.sparse import Sparse
from vwkit.stage_arrays import one_per_item
from vwkit.stream import Stream
from vwkit.transform import Transform
from vwkit.types import Array, Features, Item, Matches

__all__ = ["Run", "Words"]

_VOTES = 5  # nearest descriptors that each descriptor of a query votes with


@dataclass(frozen=True)
class Words:
    """The visual words of a run's items.

    Attributes
    ----------
    words : (n,) uint32
    offsets : (items + 1,) int64
        Words ``offsets[i]`` to ``offsets[i + 1]`` belong to the i-th item that was not skipped.
    keypoints : (n, 5) float32 or None
        x, y, scale, angle, response.
    """

    words: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    keypoints: NDArray[np.float32] | None = None


class Run:
    """A finished run.

    Attributes
    ----------
    folder : Path
    manifest : dict
        Versions, seed, stages with timings and peak memory, counts, scores.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, out: str | Path) -> Run:
        """Open a run folder.

        Raises
        ------
        RunError
            There is no finished run in it.
        ArtifactError
            It is damaged or of a newer vwkit.
        """
        folder = Path(out)
        if not folder.is_dir():
            raise RunError(
                f"{folder}: no such run folder; make one with `vwkit run SPEC --out {folder}`"
            )
        finish_commit(folder)
        path = folder / MANIFEST
        if not path.is_file():
            if (folder / INNER).is_dir():
                by = holder(folder / INNER / "lock")
                raise RunError(
                    f"{folder}: this run is being made by {by}; wait for it"
                    if by
                    else f"{folder}: this run was interrupted or failed; run it again, or go on "
                    "with --resume"
                )
            raise RunError(f"{folder}: not a run folder of vwkit (it has no {MANIFEST})")
        return cls(folder, read_manifest(path))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.items)} items)"

    # Parts

    @functools.cached_property
    def items(self) -> list[Item]:
        """All inputs in order, skipped ones too."""
        path = self.folder / "items.jsonl"
        if path.is_file() and file_sha256(path) != self.manifest.get("items_sha256"):
            raise ArtifactError(f"{path}: its checksum does not match; damaged, run again")
        return read_items(path)

    @functools.cached_property
    def kept(self) -> list[Item]:
        """The items that were not skipped."""
        return [item for item in self.items if item.status == "ok"]

    @property
    def spec(self) -> dict[str, Any]:
        """The resolved spec."""
        return dict(self.manifest["spec"])

    @property
    def scores(self) -> dict[str, Any] | None:
        """What the evaluation found."""
        return self.manifest.get("scores")

    def has(self, stage: str) -> bool:
        """Tell whether the run has a stage."""
        return stage in self.manifest["stages"]

    def path(self, stage: str) -> Path:
        """Return a stage's folder."""
        if not self.has(stage):
            names = ", ".join(self.manifest["stages"])
            raise UnsupportedError(f"{self.folder}: this run has no {stage}; it has {names}")
        return self.folder / stage

    def load(self, stage: str) -> Any:
        """Load a stage's backend."""
        return load(self.path(stage))

    def arrays(self, stage: str) -> dict[str, Array]:
        """Open a stage's arrays, memory-mapped."""
        return open_artifact(self.path(stage)).arrays()

    @functools.cached_property
    def featurizer(self) -> Featurizer:
        """The featurizer, ready to use."""
        if not self.has("featurizer"):
            raise UnsupportedError(f"{self.folder}: this run began from vectors, not images")
        found: Featurizer = self.load("featurizer")
        return found

    @functools.cached_property
    def transforms(self) -> list[Transform]:
        """The fitted transforms in order."""
        count = len(self.spec.get("transform", []))
        return [self.load(f"transform[{i}]") for i in range(count)]

    @functools.cached_property
    def quantizer(self) -> Quantizer:
        """The fitted quantizer."""
        found: Quantizer = self.load("quantizer")
        return found

    @functools.cached_property
    def clusterer(self) -> Any:
        """The fitted clusterer: the slot's own, or the one that made a bag of words' words."""
        return self.load("clusterer" if self.has("clusterer") else "featurizer.vocabulary")

    @functools.cached_property
    def vocabulary(self) -> Quantizer:
        """The visual words as a quantizer."""
        found = self.clusterer
        return found if isinstance(found, Quantizer) else Vocabulary(clusterer=found)

    @functools.cached_property
    def index(self) -> Index:
        """The search index."""
        found: Index = self.load("index")
        return found

    @functools.cached_property
    def rerankers(self) -> list[Any]:
        """The rerankers in order."""
        listed = [dict(one) for one in self.spec.get("rerank", [])]
        return [create("reranker", one.pop("use"), **one) for one in listed]

    @functools.cached_property
    def features(self) -> Stream:
        """The vectors that the featurizer gave: one row per item, or local ones with offsets."""
        name = "featurizer.local" if self.has("featurizer.local") else "features"
        arrays = self.arrays(name)
        columns = {"keypoints": arrays["keypoints"]} if "keypoints" in arrays else {}
        return Stream.from_array(
            arrays["vectors"], offsets=arrays["offsets"], items=self.kept, columns=columns
        )

    @functools.cached_property
    def vectors(self) -> Array | Sparse:
        """One vector per item, as the transforms receive them."""
        arrays = self.arrays("vectors" if self.has("vectors") else "features")
        vectors: Array | Sparse = one_per_item(arrays)
        return vectors

    @functools.cached_property
    def words(self) -> Words:
        """The visual words of all items."""
        if self.has("featurizer.words"):
            arrays = self.arrays("featurizer.words")
            keypoints = self.features.columns.get("keypoints")
            return Words(arrays["words"], arrays["offsets"], keypoints)
        words = self.arrays("labels")["labels"] if self.has("labels") else self.clusterer.labels
        offsets, keypoints = np.array([0, len(words)]), None
        if self.has("features"):
            arrays = self.arrays("features")
            offsets, keypoints = arrays["offsets"], arrays.get("keypoints")
        elif self.has("source"):
            offsets = self.arrays("source")["offsets"]
        # A view: labels may be a memory map larger than memory.
        words = words.view(np.uint32) if words.dtype == np.int32 else np.asarray(words, np.uint32)
        return Words(words, offsets, keypoints)

    # Search

    def search(self, images_or_item_ids: Any, k: int = 10, **late: Any) -> Matches:
        """Find the items most like some images.

        Parameters
        ----------
        images_or_item_ids : an image, an item id, or a list of them
            Images as paths, PIL images or arrays. For a run that began from vectors: vectors
            (q, d).
        k : int
            Items wanted per query.
        **late
            Late parameters of the index.

        Returns
        -------
        Matches
            With `items`; ids are rows of items. After a local featurizer, items are ordered by
            the share of the query's descriptors that have one of theirs among the 5 nearest; the
            distance is 1 minus that share. For a run that began from vectors, ids are rows of vectors.

        Raises
        ------
        ImageError, DataError, UnsupportedError
        """
        queries = images_or_item_ids
        if not self.has("featurizer"):
            if isinstance(queries, (str, Path)) or (
                isinstance(queries, list) and any(isinstance(q, (str, Path)) for q in queries)
            ):
                raise UnsupportedError(
                    f"{self.folder}: this run began from vectors, so it is searched by vectors, "
                    "from Python: run.search(array)"
                )
            return self.index.search(self._transformed(queries), k, **late)
        if isinstance(queries, (str, Path)) or not isinstance(queries, (list, tuple)):
            queries = [queries]
        parts = [self._query(query, k, late) for query in queries]
        ids = np.concatenate([np.zeros((0, k), np.int64), *(part.ids for part in parts)])
        distances = np.concatenate(
            [np.zeros((0, k), np.float32), *(part.distances for part in parts)]
        )
        items = [[self.items[i] if i >= 0 else None for i in row] for row in ids]
        return Matches(ids, distances, items)

    def _query(self, query: Any, k: int, late: dict[str, Any]) -> Matches:
        vectors = fitting_vectors(self.index, self._transformed(self.query_vectors(query)))
        if self.featurizer.local:
            found = self._vote(self.index.search(vectors, _VOTES, **late), k)
        else:
            found = self.index.search(vectors, k, **late)
        for reranker in self.rerankers:
            found = reranker._rerank(self.local_features(query), found, self.local_features)
        return found

    def _transformed(self, vectors: Any) -> Any:
        for transform in self.transforms:
            vectors = transform.transform(fitting_vectors(transform, vectors))
        return vectors

    @functools.cached_property
    def _by_id(self) -> dict[str, int]:
        return {item.id: i for i, item in enumerate(self.kept)}

    @functools.cached_property
    def _by_row(self) -> dict[int, int]:
        return {item.row: i for i, item in enumerate(self.kept)}

    def query_vectors(self, query: Any) -> Any:
        """Return the vectors of an image or item, before the transforms."""
        if isinstance(query, str) and query in self._by_id:
            place = self._by_id[query]
            if self.featurizer.local:
                return self.local_features(self.kept[place].row).vectors
            vectors = self.vectors
            if isinstance(vectors, Sparse):
                return vectors.rows(place, place + 1)
            return vectors[place : place + 1]
        return _features_of(self.featurizer, query).vectors

    def local_features(self, query: Any) -> Features:
        """Return the local features of an image, an item id or an item's row.

        What a reranker compares: descriptors, and keypoints where they are known.
        """
        if isinstance(query, str) and query in self._by_id:
            place = self._by_id[query]
        elif isinstance(query, (int, np.integer)):
            place = self._by_row[int(query)]
        else:
            return _features_of(getattr(self.featurizer, "local_", self.featurizer), query)
        stream = self.features
        if stream.offsets is None:
            raise ArtifactError(f"{self.folder}: its features have no offsets; damaged, run again")
        rows = slice(int(stream.offsets[place]), int(stream.offsets[place + 1]))
        points = stream.columns.get("keypoints")
        return Features(
            stream.toarray()[rows],
            None if points is None else points[rows],
            self.kept[place].size,
        )

    def _vote(self, nearest: Matches, k: int) -> Matches:
        ids = np.full((1, k), -1, np.int64)
        distances = np.full((1, k), np.inf, np.float32)
        if len(nearest):
            line, column = np.nonzero(nearest.ids >= 0)
            offsets = self.arrays("features")["offsets"]
            owners = np.searchsorted(offsets, nearest.ids[line, column], side="right") - 1
            # Each of the query's descriptors has one vote for an item, however often it is near.
            once = np.unique(line * len(self.kept) + owners) % len(self.kept)
            votes = np.bincount(once, minlength=len(self.kept)) / len(nearest)
            order = np.lexsort((np.arange(len(votes)), -votes))[:k]
            order = order[votes[order] > 0]
            ids[0, : len(order)] = [self.kept[i].row for i in order]
            distances[0, : len(order)] = 1 - votes[order]
        return Matches(ids, distances)


def _features_of(featurizer: Featurizer, query: Any) -> Features:
    if isinstance(query, (str, Path)) and not Path(query).exists():
        raise MissingFileError(f"{query}: neither an item of this run nor a file")
    found = next(iter(featurizer.features([query])))
    if not isinstance(found, Features):
        raise DataError(f"{query}: no features")
    return found


def fitting_vectors(backend: Backend, vectors: Any) -> Any:
    """Make sparse vectors dense for a backend that takes no sparse ones.

    Raises
    ------
    DataError
        They would not fit into the job's memory.
    """
    if not isinstance(vectors, Sparse) or getattr(backend, "supports_sparse", False):
        return vectors
    rows, columns = vectors.shape
    if 4 * rows * columns > job().memory:
        raise DataError(
            f"{backend.name} takes no sparse vectors, and {rows:,} × {columns:,} dense ones do not "
            f"fit into {job().memory:,} bytes; take the index inverted, or fewer words"
        )
    return vectors.toarray()
