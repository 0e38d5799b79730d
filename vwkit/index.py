"""The index role: vectors → nearest neighbours."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.base import Backend
from vwkit.data import prepare, rows_of
from vwkit.errors import (
    ArtifactError,
    BackendError,
    DataError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from vwkit.restoring import check_array, whole
from vwkit.row_ids import RowIds
from vwkit.types import Array, Matches

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Index"]


class Index(Backend):
    """Finds nearest neighbours.

    An author writes `_build` and `_search`, and `_add`, `_remove` if the library can. Rows are
    numbered from 0 in the order of building and adding and never renumbered; the core keeps the
    user's ids, checks and converts the data, cuts k to the rows held and pads the answers.
    """

    role: ClassVar[str] = "index"
    #: Which of l2, cosine, ip, hamming it offers.
    metrics: ClassVar[frozenset[str]] = frozenset({"l2"})
    #: Whether the answers are the true nearest neighbours.
    exact: ClassVar[bool] = False
    supports_add: ClassVar[bool] = False
    supports_remove: ClassVar[bool] = False
    #: Whether a removed vector is gone at once, and takes no room any more.
    frees_removed: ClassVar[bool] = False
    #: Whether it can let go of removed vectors by itself, by `_compact`.
    supports_compact: ClassVar[bool] = False
    #: Whether `_search` takes ``allowed``, an (n,) bool array over rows.
    supports_filter: ClassVar[bool] = False
    supports_sparse: ClassVar[bool] = False
    #: Whether several threads may search at once; otherwise the core takes a lock.
    thread_safe: ClassVar[bool] = False
    #: Whether one that was loaded stays in its files, which are mapped, and takes no memory itself.
    memory_mapped: ClassVar[bool] = False
    #: A returned distance may be off by this times (‖q‖² + ‖x‖²).
    distance_error: ClassVar[float] = 1e-5

    metric: str = "l2"

    _rows: int = 0
    _ids: RowIds | None = None

    @classmethod
    def _adapt_fields(cls, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        offered = sorted(cls.metrics)
        annotations["metric"] = Literal[tuple(offered)]
        if defaults.get("metric") not in cls.metrics:
            defaults["metric"] = offered[0]

    # What an author writes

    def _build(self, vectors: Any) -> None:
        """Take in the vectors, (n, d); a second call replaces the first."""
        raise NotImplementedError(f"{type(self).__name__} must define _build")

    def _size(self) -> int | None:
        """Return how many vectors were taken in, by the library's own count; None if it has none."""
        return None

    def _search(self, queries: Any, k: int) -> tuple[Any, Any]:
        """Return rows (q, k') int64 and distances (q, k') float32, nearest first, k' ≤ k.

        With `supports_filter` it also takes ``allowed=``, an (n,) bool array over rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _search")

    def _add(self, vectors: Any) -> None:
        """Take in more vectors, numbered on from those held."""
        raise NotImplementedError(f"{type(self).__name__} must define _add")

    def _remove(self, rows: NDArray[np.int64]) -> None:
        """Forget these rows for good."""
        raise NotImplementedError(f"{type(self).__name__} must define _remove")

    def _compact(self, rows: NDArray[np.int64]) -> None:
        """Let go of all but these rows, which ascend, and number them anew from 0."""
        raise NotImplementedError(f"{type(self).__name__} must define _compact")

    # What a user calls

    def __len__(self) -> int:
        """Return the number of vectors that can be found."""
        return self._ids.alive if self._ids is not None else 0

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        self._need_fitted("build")
        return self._dim or 0

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids held, in row order, without the removed ones."""
        self._need_fitted("build")
        return self._held_ids.living()

    @property
    def _held_ids(self) -> RowIds:
        if self._ids is None:
            self._need_fitted("build")
            raise BackendError(f"{self.name} lost its ids")
        return self._ids

    def build(self, vectors: Any, ids: Any = None) -> Self:
        """Build the index; an earlier one is replaced.

        Parameters
        ----------
        vectors : (n, d) array, Stream or Sparse
            Any layout, uint8 or a float type.
        ids : (n,) int64, optional
            One unique id ≥ 0 per vector; the row numbers by default.

        Returns
        -------
        Index
            This index.

        Raises
        ------
        DataError, ShapeError
            No rows, NaN or infinity, or ids that repeat or do not fit.
        """
        prepared = self._prepare(vectors, "vectors")
        table = RowIds(rows_of(prepared), ids)
        self._fitted = False
        self._dim = prepared.dim if hasattr(prepared, "dim") else int(prepared.shape[1])
        self._kind = getattr(vectors, "kind", None)
        self._build(prepared)
        held = self._size()
        if held is not None and held != table.total:
            raise BackendError(
                f"{self.name}._build was given {table.total:,} vectors and holds {held:,}"
            )
        self._ids = table
        self._fitted = True
        return self

    def add(self, vectors: Any, ids: Any = None) -> Self:
        """Add vectors to a built index; by default their ids go on from the largest row number.

        Raises
        ------
        UnsupportedError
            This backend cannot.
        DataError, ShapeError
            As for `build`; an id that is held already.
        """
        self._need_ability("supports_add", "add to")
        self._need_fitted("build")
        prepared = self._prepare(vectors, "vectors", dim=self._dim)
        with self._locked():  # whoever adds at the same time gets other ids
            merged = self._held_ids.with_more(rows_of(prepared), ids)
            self._add(prepared)
            self._ids = merged
        return self

    def remove(self, ids: Any) -> Self:
        """Remove vectors by id; they never come back, and their row numbers are not used again.

        Raises
        ------
        UnsupportedError
            This backend cannot.
        DataError
            An id is not held.
        """
        self._need_ability("supports_remove", "remove from")
        self._need_fitted("build")
        with self._locked():
            rows = self._held_ids.rows(ids)
            if len(rows) == len(self):
                raise DataError("removing every vector would leave an empty index; build a new one")
            if len(rows):
                self._remove(rows)
                self._ids = self._held_ids.without(rows)
        return self

    @property
    def dead(self) -> int:
        """How many removed vectors still take room; `compact` lets go of them."""
        self._need_fitted("build")
        return 0 if self.frees_removed else self._held_ids.total - len(self)

    def compact(self, vectors: Any = None) -> Self:
        """Let go of what was removed: as if only what is left had been built. Ids stay.

        Parameters
        ----------
        vectors : (n, d) array, Stream or Sparse, optional
            The vectors that are left, in the order of `ids`. Without them only a backend that can
            (`supports_compact`) does it; others are built again from them.

        Raises
        ------
        UnsupportedError
            It needs the vectors.
        ShapeError
            Not as many as are left.
        """
        self._need_fitted("build")
        if not self.dead:
            return self
        table, prepared = self._held_ids, None
        if not self.supports_compact:
            if vectors is None:
                raise UnsupportedError(
                    f"{self.name} cannot let go of removed vectors by itself; give those that are "
                    "left: index.compact(vectors), in the order of index.ids"
                )
            prepared = self._prepare(vectors, "vectors", dim=self._dim)
            if rows_of(prepared) != len(self):
                raise ShapeError(
                    f"vectors: those of the {len(self):,} ids that are left are needed, in the "
                    f"order of index.ids; got {rows_of(prepared):,}"
                )
        with self._locked():
            before = dict(vars(self))
            try:
                self._compacted(table.living_rows(), prepared)
            except BaseException:  # also where somebody interrupts it
                vars(self).clear()
                vars(self).update(before)
                raise
            self._ids = RowIds(len(table.living()), table.living())
        return self

    def _compacted(self, rows: NDArray[np.int64], vectors: Any) -> None:
        """Keep these rows, of these vectors where they are needed."""
        if vectors is None:
            self._compact(rows)
        else:
            self._build(vectors)

    def _number_by_rows(self) -> None:
        """Let the rows that are left be the ids, from 0."""
        self._ids = RowIds(len(self))

    def search(self, queries: Any, k: int = 10, *, allowed: Any = None, **late: Any) -> Matches:
        """Find the k nearest vectors of each query.

        Parameters
        ----------
        queries : (q, d) array, Stream or Sparse
            q may be 0.
        k : int
            Neighbours wanted; where there are fewer, id −1 and distance +inf fill up.
        allowed : int64 array, optional
            Only these ids may be found.
        **late
            The backend's late parameters, for this search only.

        Returns
        -------
        Matches
            ids (q, k) int64 and distances (q, k) float32, ascending.

        Raises
        ------
        NotFittedError, ShapeError, DataError, UnsupportedError, ParameterError
        """
        self._need_fitted("build")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ParameterError(f"k must be a whole number of at least 1; got {k!r}")
        k = int(k)
        extra: dict[str, Any] = {}
        held = len(self)
        if allowed is not None:
            self._need_ability("supports_filter", "filter a search of")
            mask = self._held_ids.mask(allowed)
            held = int(mask.sum())
            extra["allowed"] = mask
        prepared: Any = self._prepare(queries, "queries", dim=self._dim, empty=True)
        count = prepared.shape[0]
        ids = np.full((count, k), -1, np.int64)
        distances = np.full((count, k), np.inf, np.float32)
        wanted = min(k, held)
        if count and wanted:
            backend: Any = self.with_late(late)
            if self.thread_safe:
                rows, found = backend._search(prepared, wanted, **extra)
            else:
                with self._locked():
                    rows, found = backend._search(prepared, wanted, **extra)
            self._check_answer(rows, found, count, wanted)
            self._fill(ids, distances, rows, found)
        elif late:
            self.with_late(late)
        return Matches(ids, distances)

    # Parts

    def _fill(
        self,
        ids: NDArray[np.int64],
        distances: NDArray[np.float32],
        rows: NDArray[np.int64],
        found: NDArray[np.float32],
    ) -> None:
        got = rows.shape[1]
        ids[:, :got] = self._held_ids.of(rows)
        distances[:, :got] = found
        if (rows < 0).any():
            ids[:, :got][rows < 0] = -1
            distances[:, :got][rows < 0] = np.inf

    def _check_answer(self, rows: Any, found: Any, count: int, wanted: int) -> None:
        shapes = getattr(rows, "shape", None), getattr(found, "shape", None)
        fits = (
            shapes[0] == shapes[1]
            and shapes[0] is not None
            and len(shapes[0]) == 2
            and shapes[0][0] == count
            and shapes[0][1] <= wanted
        )
        if not fits or rows.dtype.kind not in "iu":
            got = [
                f"a {type(one).__name__}" if shape is None else f"{one.dtype} of shape {shape}"
                for one, shape in zip((rows, found), shapes, strict=True)
            ]
            raise BackendError(
                f"{self.name}._search({count} queries, k={wanted}) must return integer rows and "
                f"distances, arrays of shape ({count}, at most {wanted}); got {' and '.join(got)}"
            )
        wrong = rows[(rows >= self._held_ids.total) | (rows < -1)]
        if wrong.size:
            raise BackendError(
                f"{self.name}._search returned row {int(wrong[0])}, but the index has the rows "
                f"0…{self._held_ids.total - 1}"
            )

    def _prepare(self, vectors: Any, what: str, dim: int | None = None, empty: bool = False) -> Any:
        return prepare(
            vectors,
            dtypes=self.dtypes,
            streams=self.streams and what == "vectors",
            sparse=self.supports_sparse,
            dim=dim,
            empty=empty,
            what=what,
            who=self.name,
        )

    def _need_ability(self, ability: str, verb: str) -> None:
        if not getattr(self, ability):
            raise UnsupportedError(
                f"{self.name} cannot {verb} an index (it does not declare {ability}); "
                "build again, or take a backend that can: vwkit backends"
            )

    def _locked(self) -> contextlib.AbstractContextManager[Any]:
        lock = self.__dict__.get("_lock")
        if lock is None:
            # setdefault is atomic, so two first searches agree on one lock.
            lock = self.__dict__.setdefault("_lock", threading.RLock())
        guard: contextlib.AbstractContextManager[Any] = lock
        return guard

    def _core_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        table = self._held_ids
        arrays: dict[str, Array] = {}
        if table.ids is not None:
            arrays["ids"] = table.ids
        if table.dead is not None:
            arrays["dead"] = table.dead
        return {"rows": table.total}, arrays

    def _restore_core(self, plain: dict[str, Any], arrays: dict[str, Array]) -> None:
        if "rows" not in plain:
            return
        total, dead, ids = whole("rows", plain["rows"]), arrays.get("dead"), arrays.get("ids")
        if dead is not None:
            check_array("dead", dead, (None,), "int64", low=0, high=total - 1)
            if len(dead) > 1 and (np.diff(dead) <= 0).any():
                raise ArtifactError("its dead rows are not ascending; damaged, make it again")
        if ids is not None:
            check_array("ids", ids, (total,), "int64", low=0)
        self._ids = RowIds(total, ids, dead)

    def _check_restored(self) -> None:
        if not isinstance(self._ids, RowIds):
            raise ArtifactError("it lost its ids; damaged, make it again")
