"""A finished run: its folder opened, its parts loaded when asked for, searched."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import open_artifact
from vwkit.base import Backend, create, load
from vwkit.builtin.aggregated import Aggregated
from vwkit.builtin.vocabulary import Vocabulary
from vwkit.columns import Columns
from vwkit.counted import Counted
from vwkit.errors import ArtifactError, DataError, RunError, UnsupportedError, VwkitError
from vwkit.featurizer import Featurizer
from vwkit.formats import MissingFileError
from vwkit.growing import add_items, remove_items
from vwkit.hashing import file_sha256
from vwkit.index import Index
from vwkit.items import read_items
from vwkit.jobs import job
from vwkit.lock import holder, locked
from vwkit.quantizer import Quantizer
from vwkit.run_folder import INNER, JOURNAL, MANIFEST, finish_commit, read_manifest
from vwkit.sparse import Sparse
from vwkit.stage_arrays import one_per_item
from vwkit.stream import Stream
from vwkit.transform import Transform
from vwkit.types import Array, Features, Item, Matches, in_notebook
from vwkit.where import Where, parse, search_allowed

__all__ = ["Cluster", "Run", "Words"]

_PATIENCE = 60.0  # seconds for another process to put a change in its place, which takes moments
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


@dataclass(frozen=True)
class Cluster:
    """One cluster of a run's items.

    Attributes
    ----------
    number : int
        Its label.
    items : list of Item
        In the order of the run's items; never empty.
    """

    number: int
    items: list[Item]

    def _repr_html_(self) -> str:
        return in_notebook("cluster_html", self)


class Clusters(list[Cluster]):
    """A list of clusters, which a notebook shows with pictures."""

    def _repr_html_(self) -> str:
        return in_notebook("clusters_html", self)


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
        self._stamp: tuple[int, int, int] | None = None  # of the manifest, where it was opened

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
        path = folder / MANIFEST
        while True:
            _settled(folder)
            stamp = _stamp(path)
            try:
                manifest = read_manifest(path)
            except ArtifactError:
                if stamp is not None and _stamp(path) == stamp:
                    raise
                # Perhaps another process is just putting a change in its place.
                if not (folder / INNER / JOURNAL).is_file() and _stamp(path) is None:
                    raise _unfinished(folder) from None
                continue
            if _stamp(path) == stamp:
                break
        run = cls(folder, manifest)
        run._stamp = stamp
        return run

    def reopen(self) -> None:
        """Look at the folder again: for a run that was changed since it was opened."""
        fresh = type(self).open(self.folder)
        self.__dict__.clear()  # with everything that was loaded
        self.__dict__.update(fresh.__dict__)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.items)} items)"

    def _repr_html_(self) -> str:
        return in_notebook("run_html", self)

    # Parts

    @functools.cached_property
    def items(self) -> list[Item]:
        """All inputs in order, skipped ones too."""
        path = self.folder / "items.jsonl"
        with self._whole():
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
        self._need_unchanged()
        return self.folder / stage

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Read a part that is of this version of the run, even if another process changes it now."""
        self._need_unchanged()
        try:
            yield
        except (VwkitError, OSError):
            self._need_unchanged()  # then that is why it failed
            raise
        self._need_unchanged()

    def _need_unchanged(self) -> None:
        """Refuse to put parts of two versions of a run together."""
        if self._stamp is not None and _stamp(self.folder / MANIFEST) != self._stamp:
            raise RunError(
                f"{self.folder}: was changed since it was opened (items added or removed, or run "
                "again); open it again"
            )

    def load(self, stage: str) -> Any:
        """Load a stage's backend."""
        with self._whole():
            return load(self.path(stage))

    def arrays(self, stage: str) -> dict[str, Array]:
        """Open a stage's arrays, memory-mapped."""
        with self._whole():
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
        if not getattr(found, "has_centers", True) and self.has("featurizer.vocabulary"):
            found = self.load("featurizer.vocabulary")  # the slot's own clusters the bags
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
        if self.has("colours"):
            return self.counted.every(self.kept)
        name = "featurizer.local" if self.has("featurizer.local") else "features"
        arrays = self.arrays(name)
        columns = {"keypoints": arrays["keypoints"]} if "keypoints" in arrays else {}
        return Stream.from_array(
            arrays["vectors"], offsets=arrays["offsets"], items=self.kept, columns=columns
        )

    @functools.cached_property
    def counted(self) -> Counted:
        """The distinct colours of a run that clusters pixels, and how often each occurs."""
        return Counted.of(self.arrays("colours"), str(self.spec["featurizer"]["space"]))

    @functools.cached_property
    def vectors(self) -> Array | Sparse:
        """One vector per item, as the transforms receive them."""
        if self.has("colours"):
            return self.features.toarray()
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
        if self.has("colours") and not self.has("labels") and self.counted.pixels is None:
            raise UnsupportedError(
                f"{self.folder}: equal pixels were counted once, and no word was kept for each pixel; "
                "add the output labels to the spec"
            )
        words = self.arrays("labels")["labels"] if self.has("labels") else self.clusterer.labels
        offsets, keypoints = np.array([0, len(words)]), None
        if self.has("colours"):
            offsets = self.counted.offsets
        elif self.has("features"):
            arrays = self.arrays("features")
            offsets, keypoints = arrays["offsets"], arrays.get("keypoints")
        elif self.has("source"):
            offsets = self.arrays("source")["offsets"]
        # A view: labels may be a memory map larger than memory.
        words = words.view(np.uint32) if words.dtype == np.int32 else np.asarray(words, np.uint32)
        return Words(words, offsets, keypoints)

    @functools.cached_property
    def item_labels(self) -> NDArray[np.int32]:
        """The label of each item that was not skipped, in order; −1 is in no cluster.

        Raises
        ------
        UnsupportedError
            The run has no clusterer, or what was clustered is not one vector per item.
        """
        if not self.has("clusterer"):
            raise UnsupportedError(
                f"{self.folder}: this run has no clusters; its spec needs a clusterer"
            )
        labels = self.arrays("labels")["labels"] if self.has("labels") else self.clusterer.labels
        single = self.has("vectors")
        if not single and self.has("features"):
            offsets = self.arrays("features")["offsets"]
            single = np.array_equal(offsets, np.arange(len(self.kept) + 1))
        if not single or len(labels) != len(self.kept):
            raise UnsupportedError(
                f"{self.folder}: the {len(labels):,} labels are not of {len(self.kept):,} items, one "
                "each: clusters of items need images and one vector for each of them"
            )
        return np.asarray(labels)

    @functools.cached_property
    def clusters(self) -> list[Cluster]:
        """The clusters of items, the largest first; of equal ones, the lowest number.

        Items that are in no cluster are not among them; see `unclustered`.

        Raises
        ------
        UnsupportedError
            The run has no clusterer, or what was clustered is not one vector per item.
        """
        labels = self.item_labels
        order = np.argsort(labels, kind="stable")
        numbers, starts = np.unique(labels[order], return_index=True)
        parts = np.split(order, starts[1:])
        found = [
            Cluster(int(number), [self.kept[i] for i in part])
            for number, part in zip(numbers, parts, strict=False)
            if number >= 0
        ]
        return Clusters(sorted(found, key=lambda one: (-len(one.items), one.number)))

    @functools.cached_property
    def unclustered(self) -> list[Item]:
        """The items that are in no cluster (label −1), in order.

        Raises
        ------
        UnsupportedError
            The run has no clusterer, or what was clustered is not one vector per item.
        """
        return [self.kept[i] for i in np.flatnonzero(self.item_labels < 0)]

    # Changes

    def add(
        self,
        images: Any,
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        existing: str = "refuse",
        on_error: str = "skip",
    ) -> list[Item]:
        """Add pictures to this run, its index and its folder; what is there is not computed again.

        A kill at any moment leaves the run as it was, or with all of them.

        Parameters
        ----------
        images : path, or a list of them
            Pictures, folders of pictures, or, for a run that began from URLs, a metadata file.
        ids : sequence of str, optional
            One for each picture; by default its path below the run's own folder of pictures, else its
            name.
        metadata : sequence of dict, optional
            One for each picture.
        existing : str
            ``refuse``: an id that is there already is an error, and nothing is added; ``skip``: such
            pictures are left out.
        on_error : str
            ``skip``: a picture that cannot be used becomes a skipped item; ``stop``: it is an error.

        Returns
        -------
        list of Item
            The new items, with their rows; skipped ones too.

        Raises
        ------
        UnsupportedError
            The index cannot add, or the run is of a kind that cannot grow.
        DataError, ImageError
            An id is there already, or nothing could be used.
        RunError
            The run is in use, or an interrupted run waits in its folder.
        """
        return add_items(
            self, images, ids=ids, metadata=metadata, existing=existing, on_error=on_error
        )

    def remove(self, ids: Any) -> list[Item]:
        """Remove items: they are not found any more, and their rows are not used again.

        Parameters
        ----------
        ids : str, or a list of them

        Returns
        -------
        list of Item
            The removed items; in `items` their status is ``removed``.

        Raises
        ------
        UnsupportedError, RunError
            As for `add`.
        DataError
            There is no such item, or these are all; nothing is removed.
        """
        return remove_items(self, ids)

    # Search

    def search(
        self, images_or_item_ids: Any, k: int = 10, *, where: Any = None, **late: Any
    ) -> Matches:
        """Find the items most like some images.

        Parameters
        ----------
        images_or_item_ids : an image, an item id, or a list of them
            Images as paths, PIL images or arrays. For a run that began from vectors: vectors
            (q, d).
        k : int
            Items wanted per query.
        where : str, or a list of them, optional
            Only items whose metadata fulfil this may be found: ``"price < 20 and color == 'red'"``; see
            `vwkit.where`. All of a list must hold.
        **late
            Late parameters of the index.

        Returns
        -------
        Matches
            With `items`; ids are rows of items. After a local featurizer, items are ordered by
            the share of the query's descriptors that have one of theirs among the 5 nearest; the
            distance is 1 minus that share. With a reranker, items are in its order and keep the
            distances that the index gave them. For a run that began from vectors, ids are rows of
            vectors.

        Raises
        ------
        ImageError, DataError, UnsupportedError, ParameterError
        """
        queries = images_or_item_ids
        allowed = None if where is None else self._allowed(where)
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
        parts = [self._query(query, k, late, allowed) for query in queries]
        ids = np.concatenate([np.zeros((0, k), np.int64), *(part.ids for part in parts)])
        distances = np.concatenate(
            [np.zeros((0, k), np.float32), *(part.distances for part in parts)]
        )
        items = [[self.items[i] if i >= 0 else None for i in row] for row in ids]
        return Matches(ids, distances, items)

    def _query(
        self, query: Any, k: int, late: dict[str, Any], allowed: NDArray[np.int64] | None = None
    ) -> Matches:
        if not self.rerankers:
            return self.nearest(self.query_vectors(query), k, allowed=allowed, **late)
        local = self.local_features(query)
        # A reranker may bring to the front what the index has far behind.
        wanted = max(k, *(reranker.top for reranker in self.rerankers))
        vectors = self.query_vectors(query, local)
        found = self.nearest(vectors, wanted, allowed=allowed, **late)
        for reranker in self.rerankers:
            found = reranker._rerank(local, found, self.local_features)
        return Matches(found.ids[:, :k], found.distances[:, :k])

    def nearest(
        self, vectors: Any, k: int, *, allowed: NDArray[np.int64] | None = None, **late: Any
    ) -> Matches:
        """Search by vectors as the featurizer gives them, before the transforms; without rerankers.

        Parameters
        ----------
        vectors : (q, d) array or Sparse
            One row per query; of a local featurizer, all descriptors of one query.
        k : int
            Items wanted per query.
        allowed : (n,) int64, optional
            Only these ids of the index.
        **late
            Late parameters of the index.

        Returns
        -------
        Matches
            ids are rows of items.
        """
        vectors = self.indexable(vectors)
        count = _VOTES if self.featurizer.local else k
        if allowed is None:
            found = self.index.search(vectors, count, **late)
        else:
            found = search_allowed(self.index, vectors, count, allowed, late)
        return self._vote(found, k) if self.featurizer.local else found

    @functools.cached_property
    def _columns(self) -> Columns:
        return Columns(self.kept)

    def _allowed(self, where: Any) -> NDArray[np.int64]:
        """Return the ids of the index that belong to the items an expression allows."""
        if not self.has("featurizer"):
            raise UnsupportedError(
                f"{self.folder}: this run began from vectors; `where` needs items"
            )
        mask = (where if isinstance(where, Where) else parse(where)).mask(self._columns)
        if not self.featurizer.local:
            return np.array([item.row for item in self.kept], np.int64)[mask]
        lengths = np.diff(self._feature_offsets)
        return np.flatnonzero(np.repeat(mask, lengths)).astype(np.int64)

    def indexable(self, vectors: Any) -> Any:
        """Return vectors of the featurizer as the index takes them: transformed."""
        return fitting_vectors(self.index, self._transformed(vectors))

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

    def _need_living(self, query: Any) -> None:
        """Refuse the id of an item that is there no more, by what became of it."""
        if isinstance(query, str) and not _there(query):
            for item in self.items:
                if item.id == query and item.status != "ok":
                    why = f" ({item.reason})" if item.reason else ""
                    raise MissingFileError(f"{query}: this item was {item.status}{why}")

    def query_vectors(self, query: Any, local: Features | None = None) -> Any:
        """Return the vectors of an image or item, before the transforms.

        Its local features, where they are known already, are not looked for again.
        """
        if isinstance(query, str) and query in self._by_id:
            place = self._by_id[query]
            if self.featurizer.local:
                return self.local_features(self.kept[place].row).vectors
            vectors = self.vectors
            if isinstance(vectors, Sparse):
                return vectors.rows(place, place + 1)
            return vectors[place : place + 1]
        self._need_living(query)
        if local is not None and isinstance(self.featurizer, Aggregated):
            return self.featurizer.vector_of(local)
        if local is not None:
            return local.vectors  # of the featurizer itself
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

    @functools.cached_property
    def _feature_offsets(self) -> NDArray[np.int64]:
        """Where each item's features begin: opened, which verifies every file, only once."""
        offsets: NDArray[np.int64] = self.arrays("features")["offsets"]
        return offsets

    def _vote(self, nearest: Matches, k: int) -> Matches:
        ids = np.full((1, k), -1, np.int64)
        distances = np.full((1, k), np.inf, np.float32)
        if len(nearest):
            line, column = np.nonzero(nearest.ids >= 0)
            offsets = self._feature_offsets
            owners = np.searchsorted(offsets, nearest.ids[line, column], side="right") - 1
            # Each of the query's descriptors has one vote for an item, however often it is near.
            once = np.unique(line * len(self.kept) + owners) % len(self.kept)
            votes = np.bincount(once, minlength=len(self.kept)) / len(nearest)
            order = np.lexsort((np.arange(len(votes)), -votes))[:k]
            order = order[votes[order] > 0]
            ids[0, : len(order)] = [self.kept[i].row for i in order]
            distances[0, : len(order)] = 1 - votes[order]
        return Matches(ids, distances)


def _unfinished(folder: Path) -> RunError:
    """Say why there is no finished run in a folder."""
    if not (folder / INNER).is_dir():
        return RunError(f"{folder}: not a run folder of vwkit (it has no {MANIFEST})")
    by = holder(folder / INNER / "lock")
    return RunError(
        f"{folder}: this run is being made by {by}; wait for it"
        if by
        else f"{folder}: this run was interrupted or failed; run it again, or go on with --resume"
    )


def _settled(folder: Path) -> None:
    """Roll a change forward that was cut short, or wait for the process that is about to end it.

    Only who holds the lock may move parts about: two at once would throw away what is new.
    """
    end = time.monotonic() + _PATIENCE
    while (folder / INNER / JOURNAL).is_file():
        try:
            with locked(folder / INNER / "lock", folder):
                finish_commit(folder)
        except RunError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _stamp(manifest: Path) -> tuple[int, int, int] | None:
    try:
        status = manifest.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _there(path: str | Path) -> bool:
    try:
        return path != "" and Path(path).exists()
    except OSError:  # a name that the system takes for none, such as one that is too long
        return False


def _features_of(featurizer: Featurizer, query: Any) -> Features:
    if isinstance(query, (str, Path)):
        if not _there(query):
            raise MissingFileError(
                f"{str(query) or repr(query)}: neither an item of this run nor a file"
            )
        if Path(query).is_dir():
            raise DataError(f"{str(query)!r}: a folder; a query is a picture file or an item's id")
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
