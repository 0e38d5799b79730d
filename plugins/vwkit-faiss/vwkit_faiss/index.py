"""FAISS indexes by their factory string."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.data import dim_of, rows_of
from vwkit.errors import ArtifactError, BackendError, DataError, ParameterError, PluginError
from vwkit.hashing import sample_rows
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Faiss"]

_log = logging.getLogger("vwkit")

# Between two blocks the user is told how far it is and can interrupt.
_BLOCK = 65_536
# FAISS itself looks at no more than 256 points for a centroid, and at 65,536 for an 8-bit PQ.
_POINTS_PER_CENTROID = 256
_TRAIN_ROWS = 65_536
_ADVISED_POINTS = 39
_INDEX_FILE = "index.faiss"
_ROWS_FILE = "rows.npy"
_EXAMPLES = 'such as "Flat", "IVF1024,Flat", "IVF1024,PQ16" or "HNSW32"'


@vwkit.backend("faiss")
class Faiss(vwkit.Index):
    """Any FAISS index that its factory string describes: exact, inverted lists, PQ codes, HNSW.

    Douze et al. 2024, "The Faiss library"; the grammar of the strings is in its wiki under "The
    index factory". Distances are those of vwkit (`l2` squared, `cosine` 1 - cos, `ip` 1 - dot).

    What an instance can do follows from its factory: only ``"Flat"`` is `exact`; vectors can be
    removed from Flat, SQ, PQ and IVF; a search can be filtered in Flat, SQ, IVF and HNSW; all
    take more vectors later. Row numbers stay as they are when others are removed.

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
    metrics = frozenset({"l2", "cosine", "ip"})
    streams = True
    thread_safe = True
    supports_add = True
    late = frozenset({"nprobe", "efSearch"})

    factory: str = vwkit.Field(
        default="Flat", doc="What FAISS builds, in its own words: its factory string."
    )
    train_rows: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Rows to train on, drawn at random; by default 65,536, or 256 for each list of an IVF.",
    )
    seed: int = vwkit.Field(default=0, doc="Seed of the rows drawn and of FAISS's own k-means.")
    nprobe: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Lists of an IVF that a search looks at; 1 by default."
    )
    efSearch: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Candidates of an HNSW search, at least k; 16 by default."
    )

    def __post_init__(self) -> None:
        form = _form(self.factory)
        if self.nprobe is not None and not form.lists:
            raise ParameterError(
                f"faiss.nprobe: only an IVF has lists to look at; the factory is {self.factory!r}"
            )
        if self.efSearch is not None and "HNSW" not in self.factory:
            raise ParameterError(
                f"faiss.efSearch: only HNSW takes it; the factory is {self.factory!r}"
            )

    # Abilities: those of the factory

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """True for ``"Flat"`` alone."""
        return self.factory == "Flat"

    @property
    def supports_remove(self) -> bool:  # type: ignore[override]
        """Flat, SQ, PQ, and IVF with these."""
        form = _form(self.factory)
        return not form.refined and (form.base in _CODES or form.lists) and form.codes in _CODES

    @property
    def supports_filter(self) -> bool:  # type: ignore[override]
        """Flat, SQ, HNSW, and IVF with Flat, SQ or PQ."""
        form = _form(self.factory)
        if form.refined:
            return False
        if form.lists:
            return form.codes in _CODES
        return form.base in ("Flat", "SQ", "HNSW")

    @property
    def distance_error(self) -> float:  # type: ignore[override]
        """What the stored numbers lose: 16-bit ones a little; for other codes nothing is promised.

        A half float is off by 2^-11 of its value at most, a bfloat16 by 2^-9, hence a distance by
        about five times that part of ‖q‖² + ‖x‖².
        """
        form = _form(self.factory)
        if form.stored == "Flat" and not form.projected:
            return 1e-5
        if form.projected:
            return 2.0
        return {"SQfp16": 2.5e-3, "SQbf16": 1e-2}.get(form.stored, 2.0)

    # Building

    def _build(self, vectors: Any) -> None:
        faiss = _faiss()
        dim, rows = dim_of(vectors), rows_of(vectors)
        index = self._made(faiss, dim)
        with _omp_threads(faiss, job().threads), self._told(DataError):
            if not index.is_trained:
                self._train(faiss, index, vectors, rows)
            self._take_in(index, vectors, rows, 0)
        self._index: Any = index
        self._total = rows
        # Where removing moves the vectors behind up: the row at each place, once that differs.
        self._row_at: NDArray[np.int64] | None = None
        self._gate = _Gate()

    def _made(self, faiss: Any, dim: int) -> Any:
        metric = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        with self._told(ParameterError, f" for {dim} dimensions"):
            return faiss.index_factory(dim, self.factory, metric)

    def _train(self, faiss: Any, index: Any, vectors: Any, rows: int) -> None:
        parts = list(_parts(faiss, index))
        lists = max((part.nlist for part in parts if isinstance(part, faiss.IndexIVF)), default=0)
        wanted = self.train_rows or max(_TRAIN_ROWS, _POINTS_PER_CENTROID * lists)
        sample = vectors
        if wanted < rows:
            chosen = sample_rows(rows, wanted, self.seed)
            sample = vectors.take(chosen) if isinstance(vectors, Stream) else vectors[chosen]
        elif isinstance(vectors, Stream):
            sample = vectors.toarray()
        sample = self._fitting(np.ascontiguousarray(sample))
        with _trainers(faiss, index, parts, self.seed % (1 << 31)) as needed:
            if len(sample) < needed:
                raise DataError(
                    f"faiss {self.factory}: learns {needed:,} centroids and so needs as many "
                    f"training rows; got {len(sample):,} (of {rows:,} vectors, train_rows: "
                    f"{self.train_rows}); give more, or take a smaller factory"
                )
            if len(sample) < needed * _ADVISED_POINTS:
                _log.warning(
                    "faiss %s: %d training rows for %d centroids; %d or more are advised",
                    self.factory,
                    len(sample),
                    needed,
                    needed * _ADVISED_POINTS,
                )
            index.train(sample)

    def _take_in(self, index: Any, vectors: Any, rows: int, first: int) -> None:
        """Add vectors as the rows from `first` on."""
        current, done = job(), 0
        # Lists hold row numbers, but FAISS would number on from the count of those that are left.
        named = first != index.ntotal and _form(self.factory).lists
        whole = isinstance(vectors, np.ndarray) and self.factory == "Flat"
        for block in _blocks(vectors, rows if whole and self.metric != "cosine" else _BLOCK):
            current.progress(done, rows, "vectors")
            if named:
                start = first + done
                numbers = np.arange(start, start + len(block), dtype=np.int64)
                index.add_with_ids(self._fitting(block), numbers)
            else:
                index.add(self._fitting(block))
            done += len(block)
        current.progress(done, rows, "vectors")

    def _add(self, vectors: Any) -> None:
        faiss, rows = _faiss(), rows_of(vectors)
        with self._gate.alone(), _omp_threads(faiss, job().threads), self._told(DataError):
            self._take_in(self._index, vectors, rows, self._total)
            if self._row_at is not None:
                more = np.arange(self._total, self._total + rows, dtype=np.int64)
                self._row_at = np.concatenate([self._row_at, more])
            self._total += rows

    def _remove(self, rows: NDArray[np.int64]) -> None:
        with self._gate.alone(), self._told(DataError):
            if _form(self.factory).lists:
                removed = self._index.remove_ids(rows)
            else:
                held = np.arange(self._total) if self._row_at is None else self._row_at
                places = np.searchsorted(held, rows)
                removed = self._index.remove_ids(places.astype(np.int64))
                self._row_at = np.delete(held, places)
            if removed != len(rows):
                raise BackendError(f"faiss removed {removed} vectors of {len(rows)}")

    def _fitting(self, vectors: Array) -> Array:
        return normalised(vectors) if self.metric == "cosine" else vectors

    # Searching

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        faiss = _faiss()
        fitting = self._fitting(queries)
        with self._gate.shared(), _omp_threads(faiss, job().threads), self._told(DataError):
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
        with self._gate.shared():
            _faiss().write_index(self._index, str(folder / _INDEX_FILE))
            numbers = np.array([self._total], np.int64)
            if self._row_at is not None:
                numbers = np.concatenate([numbers, self._row_at])
            np.save(folder / _ROWS_FILE, numbers, allow_pickle=False)

    def _load(self, folder: Path) -> None:
        path = folder / _INDEX_FILE
        index = _faiss().read_index(str(path))
        numbers = np.load(folder / _ROWS_FILE, allow_pickle=False)
        fine = (
            numbers.dtype == np.int64
            and numbers.ndim == 1
            and len(numbers) in (1, 1 + index.ntotal)
            and (numbers[1:] < numbers[0]).all()
            and (np.diff(numbers[1:]) > 0).all()
            and index.d == self._dim
            and index.ntotal == len(self)
        )
        if not fine:
            raise ArtifactError(
                f"{path}: holds {index.ntotal} vectors of {index.d} dimensions, not the "
                f"{len(self)} of {self._dim} that its manifest names; damaged, make it again"
            )
        self._index = index
        self._total = int(numbers[0])
        self._row_at = numbers[1:] if len(numbers) > 1 else None
        self._gate = _Gate()

    @contextlib.contextmanager
    def _told(self, kind: type[Exception], where: str = "") -> Iterator[None]:
        """Say what FAISS refuses in one line and one of our errors."""
        try:
            yield
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise kind(f"faiss {self.factory!r}{where}: {_reason(error)}") from None


# What a factory string says --------------------------------------------------------------------

# Encodings that FAISS can forget vectors of and (in lists) filter.
_CODES = ("Flat", "SQ", "PQ")
_PREFIX = re.compile(r"^(PCA|OPQ|RR|Pad|ITQ|L2norm)[^,]*,")
_SUFFIX = re.compile(r",(RFlat|Refine)(\((?P<what>.*)\))?$")
_REFUSED = {
    "IDMap": "rows keep their numbers by themselves; leave IDMap out",
    "LSH": "its distances are Hamming distances, not those of the metric",
    "ITQ": "its distances are Hamming distances, not those of the metric",
    "NSG": "it cannot grow, and its building never ends for some data; take HNSW",
    "L2norm": "it changes the distances; take metric cosine instead",
}


@dataclass(frozen=True)
class _Form:
    """What a factory string says about abilities.

    Attributes
    ----------
    base : str
        The first component behind the transforms, without numbers: ``IVF``, ``HNSW``, ``Flat`` …
    codes : str
        How vectors are stored, without numbers: ``Flat``, ``SQ``, ``PQ`` …
    stored : str
        Whose numbers the distances come from, in full: ``Flat``, ``SQfp16``, ``PQ16`` …
    lists : bool
        Whether vectors lie in the lists of an inverted file, with their row numbers.
    projected : bool
        Whether a transform loses part of the vectors.
    refined : bool
        Whether the best are compared again by a second index.
    """

    base: str
    codes: str
    stored: str
    lists: bool
    projected: bool
    refined: bool


@functools.lru_cache(maxsize=256)
def _form(factory: str) -> _Form:
    """Read a factory string as far as abilities depend on it; FAISS itself reads the rest.

    Raises
    ------
    ParameterError
        FAISS cannot read it, or it cannot give what an index of ours promises.
    """
    _check_grammar(factory)
    rest, refined, stored = factory, False, ""
    if found := _SUFFIX.search(rest):
        refined, stored = True, found["what"] or "Flat"
        rest = rest[: found.start()]
    projected = False
    while found := _PREFIX.match(rest):
        projected = projected or found[1] in ("PCA", "OPQ")
        rest = rest[found.end() :]
    base = _letters(rest)
    while "(" in rest:  # the coarse quantizer of "IVF64(HNSW32,Flat),Flat"
        shorter = re.sub(r"\([^()]*\)", "", rest)
        if shorter == rest:
            break
        rest = shorter
    first, _, second = rest.partition(",")
    lists = base in ("IVF", "IMI")
    if base == "HNSW" and not second:
        second = first.partition("_")[2] or "Flat"
    encoding = second or first
    codes = _letters(encoding)
    return _Form(
        base,
        codes,
        stored or encoding,
        lists,
        # Behind a second comparison with whole vectors, what a transform lost does not show.
        projected and not refined,
        refined,
    )


def _letters(component: str) -> str:
    found = re.match(r"[A-Za-z]*", component)
    letters = found[0] if found else ""
    return "SQ" if letters.startswith("SQ") else letters


def _check_grammar(factory: str) -> None:
    if factory == "Flat":
        return  # nothing is imported for the default
    for word, why in _REFUSED.items():
        if re.search(rf"(^|,){word}", factory):
            raise ParameterError(f"faiss.factory: {factory!r}: {why}")
    for word, number in re.findall(r"(IVF|HNSW|PQ|PCA|IMI2x|RQ)(\d+)", factory):
        least = 2 if word == "HNSW" else 1
        if not least <= int(number) < 1 << 31:
            raise ParameterError(
                f"faiss.factory: {factory!r}: {word} needs a number from {least} to 2^31; "
                f"got {number}"
            )
    # A trial without the memory: one list instead of many, and any dimension.
    small = re.sub(r"IVF\d+[kM]?", "IVF1", re.sub(r"IMI2x\d+", "IMI2x1", factory))
    try:
        _faiss().index_factory(64, small)
    except (RuntimeError, MemoryError) as error:
        # Whatever else it says may be due to the dimension, which is not known yet.
        if "could not parse" in str(error) or "stoi" in str(error):
            raise ParameterError(
                f"faiss.factory: FAISS cannot read {factory!r}; give a factory string {_EXAMPLES}"
            ) from None


def _reason(error: BaseException) -> str:
    """Take FAISS's sentence out of the file names and signatures around it."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    text = re.sub(r"^Error: '.*?' failed: ?", "", text)
    return text or ("not enough memory" if isinstance(error, MemoryError) else "refused by FAISS")


# Around the library ----------------------------------------------------------------------------


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise PluginError(
            f"index faiss: needs the library faiss ({error}): pip install faiss-cpu"
        ) from None
    return faiss


def _parts(faiss: Any, index: Any) -> Iterator[Any]:
    """Yield an index and those inside it."""
    yield index
    inside: list[Any] = []
    if isinstance(index, faiss.IndexPreTransform):
        inside = [index.index]
    elif isinstance(index, faiss.IndexRefine):
        inside = [index.base_index, index.refine_index]
    elif isinstance(index, faiss.IndexIVF):
        inside = [index.quantizer]
    elif isinstance(index, faiss.IndexHNSW):
        inside = [index.storage]
    for part in inside:
        if part is not None:
            yield from _parts(faiss, faiss.downcast_index(part))


@contextlib.contextmanager
def _trainers(faiss: Any, index: Any, parts: list[Any], seed: int) -> Iterator[int]:
    """Seed all k-means inside an index, keep them from writing to stderr; give their largest k."""
    needed = 1
    rotations = []
    for part in parts:
        if isinstance(part, faiss.IndexIVF):
            coarse = faiss.downcast_index(part.quantizer)
            # The lists of an IMI are pairs of centroids, of which there are far fewer.
            if not isinstance(coarse, faiss.MultiIndexQuantizer):
                needed = max(needed, part.nlist)
        for owner in (part, getattr(part, "pq", None), getattr(part, "rq", None)):
            clustering = getattr(owner, "cp", None)
            if clustering is not None:
                clustering.seed = seed
                # Below 39 points a centroid FAISS prints; the caller logs instead.
                clustering.min_points_per_centroid = 1
            needed = max(needed, getattr(owner, "ksub", 1))
        if hasattr(part, "do_polysemous_training"):
            # It takes nine tenths of a PQ's training and renumbers the centroids, for a kind of
            # search that no parameter of ours asks for; answers are the same.
            part.do_polysemous_training = False
        if isinstance(part, faiss.IndexPreTransform):
            for place in range(part.chain.size()):
                rotation = faiss.downcast_VectorTransform(part.chain.at(place))
                if isinstance(rotation, faiss.OPQMatrix):
                    # It makes a PQ of its own, which prints, unless it is given one.
                    quantizer = faiss.ProductQuantizer(rotation.d_out, rotation.M, 8)
                    quantizer.cp.seed = seed
                    quantizer.cp.min_points_per_centroid = 1
                    rotation.pq = quantizer
                    rotations.append((rotation, quantizer))
                    needed = max(needed, quantizer.ksub)
    try:
        yield needed
    finally:
        for rotation, _ in rotations:
            rotation.pq = None  # it would point at freed memory


@contextlib.contextmanager
def _omp_threads(faiss: Any, threads: int) -> Iterator[None]:
    """Hold FAISS to the job's threads. OpenMP keeps the number for each calling thread."""
    before = faiss.omp_get_max_threads()
    if before == threads:
        yield
        return
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class _Gate:
    """Lets many searches in together, but a change only alone: FAISS moves memory then."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._searching = 0
        self._waiting = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            # A change that waits goes first, or searches without end would keep it out.
            self._changed.wait_for(lambda: not self._waiting)
            self._searching += 1
        try:
            yield
        finally:
            with self._changed:
                self._searching -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._searching)
                yield
            finally:
                self._waiting -= 1
                self._changed.notify_all()


def _blocks(vectors: Any, rows: int) -> Iterator[Array]:
    stream = vectors if isinstance(vectors, Stream) else Stream.from_array(vectors)
    return iter(stream.rechunk(rows))
