"""Streams: rows of numbers in chunks that can be read again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vwkit.errors import DataError, ShapeError
from vwkit.row_readers import Behind, Computed, mapped_file
from vwkit.types import Array, Item

__all__ = ["RowReader", "Stream", "chunk_rows", "row_spans"]

CHUNK_BYTES = 8 << 20


def chunk_rows(row_bytes: int) -> int:
    """Return how many rows make a chunk of about 8 MiB, the size that caches and disks like."""
    return max(1, CHUNK_BYTES // max(1, row_bytes))


def row_spans(rows: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut 0…rows into consecutive spans of `step` rows, the last one shorter."""
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


class RowReader(Protocol):
    """Reads rows by itself, in any process: it can be pickled, and holds no data."""

    def read(self, start: int, stop: int) -> Array:
        """Return the rows [start, stop), as (stop − start, dim)."""
        ...


class Stream:
    """Rows that come in chunks, from a file or a computation, as often as they are asked for.

    Parameters
    ----------
    chunks : callable
        Returns a *fresh* iterator of (n_i, dim) arrays each time it is called.
    dim : int
        Columns.
    dtype : dtype
        Of every chunk.
    rows : int, optional
        Rows altogether; None until a first pass has counted them.
    offsets : (items + 1,) int64, optional
        Rows ``offsets[i]`` to ``offsets[i + 1]`` belong to item ``i``.
    items : sequence of Item, optional
        The inputs that the rows come from.
    columns : dict of arrays, optional
        Further values aligned with the rows, such as ``weights`` (n,) or ``keypoints`` (n, 5).
    kind : str, optional
        What the rows are, such as ``"sift"`` or ``"sift+root-sift"``. A vocabulary refuses
        descriptors of another kind.

    Raises
    ------
    DataError
        `chunks` is not callable (a generator can be read only once), or a pass brought another
        number of rows than promised.
    ShapeError
        A chunk is not (n_i, dim) or not of `dtype`.

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit import Stream
    >>> def chunks():
    ...     for start in range(0, 6, 2):
    ...         yield np.arange(start, start + 2, dtype=np.float32)[:, None]
    >>> stream = Stream(chunks, dim=1, dtype=np.float32)
    >>> [len(chunk) for chunk in stream.rechunk(4)]
    [4, 2]
    >>> stream.take([1, 5]).ravel()
    array([1., 5.], dtype=float32)
    """

    def __init__(
        self,
        chunks: Callable[[], Iterable[Array]],
        *,
        dim: int,
        dtype: DTypeLike,
        rows: int | None = None,
        offsets: NDArray[np.int64] | None = None,
        items: Sequence[Item] | None = None,
        columns: Mapping[str, Array] | None = None,
        kind: str | None = None,
    ) -> None:
        if not callable(chunks):
            raise DataError(
                "a Stream needs a function that returns a fresh iterator each time; "
                f"got {type(chunks).__name__}, which can be read only once"
            )
        self.chunks = chunks
        self.dim = int(dim)
        self.dtype = np.dtype(dtype)
        self.rows = None if rows is None else int(rows)
        self.offsets = None if offsets is None else np.asarray(offsets, np.int64)
        self.items = items
        self.columns: dict[str, Array] = dict(columns or {})
        self.kind = kind
        #: Reads any rows in any process, where the source can.
        self.reader: RowReader | None = None
        #: Rows of each chunk but the last, where every chunk has as many.
        self.step: int | None = None
        self._array: Array | None = None
        #: Reads sorted rows directly, where the source can.
        self._random: Callable[[Array], Array] | None = None
        #: Makes the chunks from a row on, where that is less work than leaving out the first.
        self._skipping: Callable[[int], Iterable[Array]] | None = None

    @classmethod
    def from_array(cls, array: Array, **aligned: Any) -> Stream:
        """Read an (n, d) array or memory map in chunks."""
        step = chunk_rows(array.shape[1] * array.itemsize)

        def chunks() -> Iterator[Array]:
            for start, stop in row_spans(len(array), step):
                yield array[start:stop]

        stream = cls(chunks, dim=array.shape[1], dtype=array.dtype, rows=len(array), **aligned)
        stream._array = array
        stream.step = step
        stream.reader = mapped_file(array)
        return stream

    @property
    def spans(self) -> list[tuple[int, int]] | None:
        """The rows of each chunk, where they are known and can be read in another process."""
        if self.reader is None or self.rows is None or self.step is None:
            return None
        return list(row_spans(self.rows, self.step))

    @property
    def array(self) -> Array | None:
        """The array or memory map that holds all rows, where there is one."""
        return self._array

    def __repr__(self) -> str:
        rows = "?" if self.rows is None else f"{self.rows:,}"
        return f"Stream({rows} × {self.dim} {self.dtype})"

    def __iter__(self) -> Iterator[Array]:
        seen = 0
        for chunk in self.chunks():
            shape, dtype = getattr(chunk, "shape", None), getattr(chunk, "dtype", None)
            if shape != (len(chunk), self.dim) or dtype != self.dtype:
                raise ShapeError(
                    f"a Stream of dim {self.dim} and dtype {self.dtype} got a chunk of shape "
                    f"{shape} and dtype {dtype} at row {seen}"
                )
            seen += len(chunk)
            if len(chunk):
                yield chunk
        if self.rows is None:
            self.rows = seen
        elif self.rows != seen:
            raise DataError(
                f"a Stream of {self.rows} rows brought {seen} rows in this pass; "
                "its function must return a fresh iterator over the same rows each time"
            )

    def count(self) -> int:
        """Return the number of rows, reading them once if they were never counted."""
        if self.rows is None:
            for _ in self:
                pass
        if self.rows is None:  # pragma: no cover - __iter__ has just set it
            raise DataError("the Stream could not be counted")
        return self.rows

    def rechunk(self, rows: int) -> Stream:
        """Return the same rows in chunks of `rows` (the last one may be shorter)."""

        def chunks() -> Iterator[Array]:
            if self._array is not None:
                for start, stop in row_spans(len(self._array), rows):
                    yield self._array[start:stop]
                return
            held: list[Array] = []
            count = 0
            for chunk in self:
                while count + len(chunk) >= rows:
                    cut = rows - count
                    held.append(chunk[:cut])
                    yield held[0] if len(held) == 1 else np.concatenate(held)
                    chunk, held, count = chunk[cut:], [], 0
                if len(chunk):
                    held.append(chunk)
                    count += len(chunk)
            if held:
                yield held[0] if len(held) == 1 else np.concatenate(held)

        def skipping(start: int) -> Iterator[Array]:
            inside = start % rows
            for chunk in self.from_row(start - inside).rechunk(rows):
                yield chunk[inside:]
                inside = 0

        derived = self._derived(chunks, self.dim, self.dtype, array=self._array)
        derived._random, derived._skipping = self._random, skipping
        derived.reader, derived.step = self.reader, rows
        return derived

    def map(
        self,
        function: Callable[[Array], Array],
        *,
        dim: int | None = None,
        dtype: DTypeLike | None = None,
        kind: str | None = None,
    ) -> Stream:
        """Return a lazy Stream of ``function(chunk)``, row for row; aligned columns stay."""

        def chunks() -> Iterator[Array]:
            for chunk in self:
                yield function(chunk)

        def skipping(start: int) -> Iterator[Array]:
            for chunk in self.from_row(start):
                yield function(chunk)

        derived = self._derived(chunks, dim or self.dim, np.dtype(dtype or self.dtype))
        derived._skipping = skipping
        derived.kind = kind if kind is not None else self.kind
        derived.step = self.step
        if self.reader is not None:
            derived.reader = Computed(self.reader, function)
        return derived

    def from_row(self, start: int) -> Stream:
        """Return the rows from `start` on, without computing those before it.

        Files and arrays are read from there; a compressed file is read through. Chunks end where
        they end in a pass over all rows, and columns are cut; offsets and items are left out.

        Raises
        ------
        DataError
            There are no so many rows.
        """
        if start == 0:
            return self
        if start < 0 or (self.rows is not None and start > self.rows):
            raise DataError(f"row {start} was asked of a Stream of {self.rows} rows")
        rest = Stream(
            lambda: self._chunks_from(start),
            dim=self.dim,
            dtype=self.dtype,
            rows=None if self.rows is None else self.rows - start,
            columns={name: column[start:] for name, column in self.columns.items()},
            kind=self.kind,
        )
        rest._array = None if self._array is None else self._array[start:]
        rest._skipping = lambda more: self._chunks_from(start + more)
        take = self._random
        if take is not None:
            rest._random = lambda rows: take(rows + start)
        if self.reader is not None and self.step is not None and start % self.step == 0:
            rest.reader, rest.step = Behind(self.reader, start), self.step
        return rest

    def _chunks_from(self, start: int) -> Iterator[Array]:
        if self._skipping is not None:
            yield from self._skipping(start)
        elif (
            self.rows is not None
            and self.step
            and (self._array is not None or self.reader is not None)
        ):
            while start < self.rows:
                stop = min(self.rows, start + self.step - start % self.step)
                if self._array is not None:
                    yield self._array[start:stop]
                elif self.reader is not None:
                    yield self.reader.read(start, stop)
                start = stop
        else:
            seen = 0
            for chunk in self.chunks():
                if seen + len(chunk) > start:
                    yield chunk[max(0, start - seen) :]
                seen += len(chunk)

    def _derived(
        self,
        chunks: Callable[[], Iterable[Array]],
        dim: int,
        dtype: np.dtype[Any],
        array: Array | None = None,
    ) -> Stream:
        stream = Stream(
            chunks,
            dim=dim,
            dtype=dtype,
            rows=self.rows,
            offsets=self.offsets,
            items=self.items,
            columns=self.columns,
            kind=self.kind,
        )
        stream._array = array
        return stream

    def take(self, sorted_rows: Any) -> Array:
        """Return the given rows, (t, dim); `sorted_rows` must ascend.

        Raises
        ------
        DataError
            Rows are unsorted or outside the stream.
        """
        given = np.asarray(sorted_rows)
        wanted = given.astype(np.int64) if given.dtype.kind in "iu" or not given.size else given
        if (
            wanted.ndim != 1
            or wanted.dtype != np.int64
            or (wanted[1:] < wanted[:-1]).any()
            or (len(wanted) and wanted[0] < 0)
        ):
            raise DataError("Stream.take needs row numbers in ascending order, from 0")
        if self._array is not None:
            if len(wanted) and wanted[-1] >= len(self._array):
                raise DataError(
                    f"row {wanted[-1]} was asked of a Stream of {len(self._array)} rows"
                )
            return np.ascontiguousarray(self._array[wanted])
        if self._random is not None:
            return self._random(wanted)
        found = np.empty((len(wanted), self.dim), self.dtype)
        start = done = 0
        for chunk in self:
            stop = start + len(chunk)
            upto = int(np.searchsorted(wanted, stop))
            found[done:upto] = chunk[wanted[done:upto] - start]
            start, done = stop, upto
        if done < len(wanted):
            raise DataError(f"row {wanted[-1]} was asked of a Stream of {start} rows")
        return found

    def toarray(self) -> Array:
        """Return all rows as one (n, dim) array in memory (a memory map stays one)."""
        if self._array is not None:
            return self._array
        if self.rows is None:
            parts = list(self)
            return np.concatenate(parts) if parts else np.empty((0, self.dim), self.dtype)
        whole = np.empty((self.rows, self.dim), self.dtype)
        start = 0
        for chunk in self:
            # A stream that brings more than it promised is refused by its own last check.
            room = whole[start : start + len(chunk)]
            room[:] = chunk[: len(room)]
            start += len(chunk)
        return whole

    def write(self, path: str | Path) -> int:
        """Write all rows to a descriptor file (format by its name); return their number."""
        from vwkit.formats import write_vectors

        return write_vectors(path, self, dim=self.dim, dtype=self.dtype, rows=self.rows)
