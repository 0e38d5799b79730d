"""Searching a finished run: from an image or an item to the items most like it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Backend
from vwkit.builtin.aggregated import Aggregated
from vwkit.columns import Columns
from vwkit.errors import ArtifactError, DataError, UnsupportedError
from vwkit.featurizer import Featurizer
from vwkit.formats import MissingFileError
from vwkit.jobs import job
from vwkit.run_parts import RunParts
from vwkit.sparse import Sparse
from vwkit.types import Features, Matches
from vwkit.where import Where, parse, search_allowed

__all__ = ["RunSearch", "fitting_vectors"]

_VOTES = 5  # nearest descriptors that each descriptor of a query votes with


class RunSearch(RunParts):
    """A finished run that can be searched."""

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
