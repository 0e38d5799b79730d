"""The index `faiss`: whatever FAISS builds from a factory string."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.data import dim_of, rows_of
from vwkit.errors import ArtifactError, BackendError, DataError, ParameterError
from vwkit.estimates import Estimate
from vwkit.hashing import sample_rows
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_faiss.factory import CODES, form_of
from vwkit_faiss.gate import Gate
from vwkit_faiss.library import load_faiss, omp_threads, told
from vwkit_faiss.lists import FaissLists, Spool, learnt
from vwkit_faiss.saved import Saved, open_saved
from vwkit_faiss.training import ADVISED_POINTS, POINTS_PER_CENTROID, needed_rows, prepared

__all__ = ["Faiss"]

_log = logging.getLogger("vwkit")

# Between two blocks the user is told how far it is and can interrupt.
_BLOCK = 65_536
_TRAIN_ROWS = 65_536
# What FAISS keeps for a list, in memory, however short it is.
_LIST_BYTES = 128
_INDEX_FILE = "index.faiss"
_ROWS_FILE = "rows.npy"


@vwkit.backend("faiss")
class Faiss(vwkit.Index):
    """Any FAISS index that its factory string describes: exact, inverted lists, PQ codes, HNSW.

    Douze et al. 2024, "The Faiss library"; the grammar of the strings is in its wiki under "The
    index factory". Distances are those of vwkit (`l2` squared, `cosine` 1 - cos, `ip` 1 - dot).

    What an instance can do follows from its factory: only ``"Flat"`` is `exact`; vectors can be
    removed from Flat, SQ, PQ and IVF; a search can be filtered in Flat, SQ, IVF and HNSW; all
    take more vectors later. Row numbers stay as they are when others are removed.

    A saved index of 1 MiB or more is mapped by `vwkit.load`, not read, so that it may be larger than
    memory; the first change brings it into memory. With `on_disk` an IVF never is there: its lists
    are built in files, searched mapped, and changed by writing a new file.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "faiss").build(np.eye(3, dtype=np.float32))
    >>> index.search([[1.0, 0.1, 0.0]], 2).ids.tolist()
    [[0, 1]]
    >>> vwkit.create("index", "faiss", factory="HNSW32").supports_remove
    False
    """

    library = "faiss-cpu"
    requires = ("faiss",)
    license = "MIT"
    revision = 2
    choose = (
        "`Flat` for certain answers up to some million vectors, `HNSW32` for speed, `IVF…,PQ…` "
        "where the vectors do not fit in memory, and any IVF with `on_disk` where the index does not."
    )
    metrics = frozenset({"l2", "cosine", "ip"})
    streams = True
    thread_safe = True
    memory_mapped = True
    supports_add = True
    frees_removed = True
    late = frozenset({"nprobe", "efSearch"})

    factory: str = vwkit.Field(
        default="Flat", doc="What FAISS builds, in its own words: its factory string."
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Rows to train on, drawn at random; by default 65,536, or 256 for each centroid.",
    )
    on_disk: bool = vwkit.Field(
        default=False, doc="Keep the lists of an IVF in a file, also while it is built."
    )
    seed: int = vwkit.Field(default=0, doc="Seed of the rows drawn and of FAISS's own k-means.")
    nprobe: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Lists of an IVF that a search looks at; 1 by default."
    )
    efSearch: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Candidates of an HNSW search, at least k; 16 by default."
    )

    def __post_init__(self) -> None:
        form = form_of(self.factory)
        if self.nprobe is not None and not form.lists:
            raise ParameterError(
                f"faiss.nprobe: only an IVF has lists to look at; the factory is {self.factory!r}"
            )
        if self.efSearch is not None and "HNSW" not in self.factory:
            raise ParameterError(
                f"faiss.efSearch: only HNSW takes it; the factory is {self.factory!r}"
            )
        if self.on_disk and not form.plain_lists:
            raise ParameterError.of(
                "on_disk",
                "only an IVF with Flat, SQ or PQ codes (without fs and Refine) can have its lists in "
                f"a file; the factory is {self.factory!r}",
            )
        if self.metric == "cosine" and "_direct" in self.factory:
            raise ParameterError.of(
                "factory", f"{self.factory!r} stores whole numbers, and cosine has none; take SQ8"
            )

    # Abilities: those of the factory

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """True for ``"Flat"`` alone."""
        return self.factory == "Flat"

    @property
    def supports_remove(self) -> bool:  # type: ignore[override]
        """Flat, SQ, PQ, and IVF with these."""
        form = form_of(self.factory)
        inside = form.base in CODES or bool(form.lists)
        return not form.refined and inside and form.codes in CODES

    @property
    def supports_filter(self) -> bool:  # type: ignore[override]
        """Flat, SQ, HNSW, and IVF with Flat, SQ or PQ."""
        form = form_of(self.factory)
        if form.refined:
            return False
        if form.lists:
            return form.codes in CODES
        return form.base in ("Flat", "SQ", "HNSW")

    @property
    def distance_error(self) -> float:  # type: ignore[override]
        """What the stored numbers lose: 16-bit ones a little; for other codes nothing is promised.

        A half float is off by 2^-11 of its value at most, a bfloat16 by 2^-9, hence a distance by
        about five times that part of ‖q‖² + ‖x‖².
        """
        form = form_of(self.factory)
        if form.stored == "Flat" and not form.projected:
            return 1e-5
        if form.projected:
            return 2.0
        return {"SQfp16": 2.5e-3, "SQbf16": 1e-2}.get(form.stored, 2.0)

    # Building

    def _build(self, vectors: Any) -> None:
        faiss = load_faiss("index faiss")
        rows = rows_of(vectors)
        self._check_lists(rows)
        index, saved = self._made(faiss, dim_of(vectors)), None
        with omp_threads(faiss, job().threads), self._told(DataError):
            if not index.is_trained:
                self._train(faiss, index, vectors, rows)
            if self.on_disk:
                with Spool(faiss, index, job()) as spool:
                    self._spool(spool, vectors, rows, 0)
                    index, saved = self._opened(faiss, spool.finish(), rows)
            else:
                self._take_in(index, vectors, rows, 0)
        self._index: Any = index
        self._saved: Saved | None = saved
        self._total = rows
        # Where removing moves the vectors behind up: the row at each place, once that differs.
        self._row_at: NDArray[np.int64] | None = None
        self._gate = Gate()

    def _size(self) -> int:
        return int(self._index.ntotal)

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate | None:
        if self.factory != "Flat":
            return None
        held = 4.0 * rows * dim
        return Estimate(work=held, memory=held, least=held, disk=held)

    def _check_lists(self, rows: int) -> None:
        """Refuse more lists than vectors, before they take memory."""
        form = form_of(self.factory)
        if form.base == "IVF" and form.lists > rows:
            raise DataError(
                f"faiss {self.factory}: learns {form.lists:,} centroids and so needs as many "
                f"training rows; got {rows:,} vectors; give more, or take a smaller factory"
            )
        if form.lists * _LIST_BYTES > max(job().memory, 1 << 30):
            raise DataError(f"faiss {self.factory}: {form.lists:,} lists do not fit in memory")

    def _made(self, faiss: Any, dim: int) -> Any:
        """Make an empty index."""
        metric = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        with self._told(ParameterError, f" for {dim} dimensions"):
            return faiss.index_factory(dim, self.factory, metric)

    def _train(self, faiss: Any, index: Any, vectors: Any, rows: int) -> None:
        needed = needed_rows(faiss, index)
        wanted = self.train_rows
        if wanted is None:
            room = job().memory // (8 * index.d)
            wanted = max(_TRAIN_ROWS, POINTS_PER_CENTROID * needed)
            wanted = min(wanted, max(room, ADVISED_POINTS * needed))
        if min(wanted, rows) < needed:
            raise DataError(
                f"faiss {self.factory}: learns {needed:,} centroids and so needs as many "
                f"training rows; got {min(wanted, rows):,} (of {rows:,} vectors, train_rows: "
                f"{self.train_rows}); give more, or take a smaller factory"
            )
        sample = vectors
        if wanted < rows:
            chosen = sample_rows(rows, wanted, self.seed)
            sample = vectors.take(chosen) if isinstance(vectors, Stream) else vectors[chosen]
        elif isinstance(vectors, Stream):
            sample = vectors.toarray()
        if len(sample) < needed * ADVISED_POINTS:
            _log.warning(
                "faiss %s: %d training rows for %d centroids; %d or more are advised",
                self.factory,
                len(sample),
                needed,
                needed * ADVISED_POINTS,
            )
        with prepared(faiss, index, self.seed, self.train_rows is not None):
            index.train(self._fitting(np.ascontiguousarray(sample)))

    def _take_in(self, index: Any, vectors: Any, rows: int, first: int) -> None:
        """Add vectors as the rows from `first` on."""
        # Lists hold row numbers, but FAISS would number on from the count of those that are left.
        named = first != index.ntotal and form_of(self.factory).lists
        whole = isinstance(vectors, np.ndarray) and self.factory == "Flat"
        step = rows if whole and self.metric != "cosine" else _BLOCK
        for start, block in self._told_blocks(vectors, rows, step):
            if named:
                numbers = np.arange(first + start, first + start + len(block), dtype=np.int64)
                index.add_with_ids(block, numbers)
            else:
                index.add(block)

    def _spool(self, spool: Spool, vectors: Any, rows: int, first: int) -> None:
        """Add vectors as the rows from `first` on, on disk."""
        for start, block in self._told_blocks(vectors, rows, spool.block):
            begin = first + start
            spool.add(block, np.arange(begin, begin + len(block), dtype=np.int64))

    def _told_blocks(self, vectors: Any, rows: int, step: int) -> Iterator[tuple[int, Array]]:
        """Yield blocks as FAISS is to get them, with where they begin, and tell how far it is."""
        stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
        current, done = job(), 0
        for block in stream.rechunk(step):
            current.progress(done, rows, "vectors")
            yield done, self._fitting(block)
            done += len(block)
        current.progress(done, rows, "vectors")

    def _opened(self, faiss: Any, path: Path, held: int) -> tuple[Any, Saved | None]:
        """Open a file that may be of anybody; it is mapped where that is worth while."""
        fresh = self._made(faiss, self._dim or 0)
        return open_saved(faiss, path, fresh, held, True if self.on_disk else None)

    # Changing

    def _add(self, vectors: Any) -> None:
        faiss, rows = load_faiss("index faiss"), rows_of(vectors)
        with omp_threads(faiss, job().threads), self._told(DataError):
            if self.on_disk:
                self._rewrite(faiss, vectors, rows)
                return
            with self._gate.alone():
                self._take_in(self._in_memory(faiss), vectors, rows, self._total)
                if self._row_at is not None:
                    more = np.arange(self._total, self._total + rows, dtype=np.int64)
                    self._row_at = np.concatenate([self._row_at, more])
                self._total += rows

    def _remove(self, rows: NDArray[np.int64]) -> None:
        faiss = load_faiss("index faiss")
        with self._told(DataError):
            if self.on_disk:
                gone = np.zeros(self._total, bool)
                gone[rows] = True
                self._rewrite(faiss, gone=gone)
                return
            with self._gate.alone():
                index = self._in_memory(faiss)
                if form_of(self.factory).lists:
                    removed = index.remove_ids(rows)
                else:
                    held = np.arange(self._total) if self._row_at is None else self._row_at
                    places = np.searchsorted(held, rows)
                    removed = index.remove_ids(places.astype(np.int64))
                    self._row_at = np.delete(held, places)
                if removed != len(rows):
                    raise BackendError(f"faiss removed {removed} vectors of {len(rows)}")

    def _rewrite(
        self, faiss: Any, vectors: Any = None, rows: int = 0, gone: NDArray[np.bool_] | None = None
    ) -> None:
        """Write a new file, with more vectors or without some; others search in the old one."""
        with self._gate.alone():
            empty = learnt(faiss, self._index)
        left = self._index.ntotal + rows - (0 if gone is None else int(gone.sum()))
        with Spool(faiss, empty, job()) as spool:
            if rows:
                self._spool(spool, vectors, rows, self._total)
            path = spool.finish([FaissLists(faiss, self._index)], gone)
            index, saved = self._opened(faiss, path, left)
        with self._gate.alone():
            self._index, self._saved = index, saved
            self._total += rows

    def _in_memory(self, faiss: Any) -> Any:
        """Return the index where it can be changed."""
        if self._saved is not None:
            fresh = self._made(faiss, self._dim or 0)
            self._index = self._saved.into_memory(faiss, fresh, self._index.ntotal)
            self._saved = None
        return self._index

    def _fitting(self, vectors: Array) -> Array:
        if "_direct" in self.factory:
            low = -128 if "signed" in self.factory else 0
            wrong = (vectors != np.rint(vectors)) | (vectors < low) | (vectors > low + 255)
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                raise DataError(
                    f"faiss {self.factory}: stores whole numbers from {low} to {low + 255}; got "
                    f"{vectors[row, column]}; take SQ8"
                )
        return normalised(vectors) if self.metric == "cosine" else vectors

    # Searching

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        faiss = load_faiss("index faiss")
        fitting = normalised(queries) if self.metric == "cosine" else queries
        with self._gate.shared(), omp_threads(faiss, job().threads), self._told(DataError):
            index, row_at = self._index, self._row_at
            selector = None
            if allowed is not None:
                mask = allowed if row_at is None else allowed[row_at]
                selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            params = self._search_params(faiss, index, selector)
            distances, places = index.search(fitting, k, params=params)
        if row_at is not None:
            places = np.where(places < 0, -1, row_at[places])
        if self.metric != "l2":
            np.subtract(1, distances, out=distances)
        return places, distances

    def _search_params(self, faiss: Any, index: Any, selector: Any) -> Any:
        """Return what this one search is to do otherwise; the index itself is not touched."""
        if selector is None and self.nprobe is None and self.efSearch is None:
            return None
        if isinstance(index, faiss.IndexPreTransform):
            inner = self._search_params(faiss, faiss.downcast_index(index.index), selector)
            return faiss.SearchParametersPreTransform(index_params=inner)
        if isinstance(index, faiss.IndexRefine):
            inner = self._search_params(faiss, faiss.downcast_index(index.base_index), selector)
            return faiss.IndexRefineSearchParameters(
                base_index_params=inner, k_factor=index.k_factor
            )
        chosen: dict[str, Any] = {} if selector is None else {"sel": selector}
        if isinstance(index, faiss.IndexIVF):
            chosen["nprobe"] = self.nprobe or index.nprobe
            coarse = faiss.downcast_index(index.quantizer)
            if self.efSearch is not None and isinstance(coarse, faiss.IndexHNSW):
                inner = faiss.SearchParametersHNSW(efSearch=self.efSearch)
                chosen["quantizer_params"] = inner
            return faiss.SearchParametersIVF(**chosen)
        if isinstance(index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(
                efSearch=self.efSearch or index.hnsw.efSearch, **chosen
            )
        return faiss.SearchParameters(**chosen) if chosen else None

    # Saving

    def _save(self, folder: Path) -> None:
        with self._gate.shared(), self._told(ArtifactError):
            if self._saved is not None:
                self._saved.copy_to(folder / _INDEX_FILE)
            else:
                load_faiss("index faiss").write_index(self._index, str(folder / _INDEX_FILE))
            numbers = np.array([self._total], np.int64)
            if self._row_at is not None:
                numbers = np.concatenate([numbers, self._row_at])
            np.save(folder / _ROWS_FILE, numbers, allow_pickle=False)

    def _load(self, folder: Path) -> None:
        numbers = np.load(folder / _ROWS_FILE, allow_pickle=False)
        fine = (
            numbers.dtype == np.int64
            and numbers.ndim == 1
            and len(numbers) >= 1
            and len(numbers) in (1, 1 + len(self))
            and (numbers[1:] < numbers[0]).all()
            and (numbers[1:] >= 0).all()
            and (np.diff(numbers[1:]) > 0).all()
            and numbers[0] >= len(self)
        )
        if not fine:
            raise ArtifactError(
                f"{folder / _ROWS_FILE}: not the row numbers of {len(self)} vectors; damaged, make "
                "it again"
            )
        faiss, self._total = load_faiss("index faiss"), int(numbers[0])
        self._check_lists(self._total)
        self._index, self._saved = self._opened(faiss, folder / _INDEX_FILE, len(self))
        self._row_at = numbers[1:] if len(numbers) > 1 else None
        self._gate = Gate()

    def _told(self, kind: type[Exception], where: str = "") -> Any:
        return told(kind, f"faiss {self.factory!r}{where}")
