"""Building an IVF whose inverted lists never lie in memory.

Vectors are taken in until the lists reach a part of the job's memory; then these go to a file, and
memory starts anew. In the end the files are merged, list by list, into one that is what FAISS would
have written. FAISS's own `OnDiskInvertedLists` writes through a memory map, where a full disk ends the
process, and keeps the name of its file in the index, which would follow an artifact to wherever it
points.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.jobs import Job
from vwkit.types import Array
from vwkit_faiss.training import parts

__all__ = ["FaissLists", "Spool", "inner_ivf", "learnt"]

# Bytes of lists in memory: of the job's memory a share, since they grow by doubling; more than the
# most would not be faster.
_SHARE = 8
_LEAST_ROOM, _MOST_ROOM = 1 << 16, 256 << 20
_LARGEST_BLOCK = 65_536
_ID_BYTES = 8
_CHECKED = 1024
# How lists begin in a file: kind, number, bytes of a code, "sprs" or "full" sizes, how many.
_LISTS = struct.Struct("<4s Q Q 4s Q")

Piece = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Codes (n, width) and row numbers (n,) of one list."""


class Lists(Protocol):
    """Whatever holds inverted lists."""

    def piece(self, place: int) -> Piece:
        """Return what is in one list."""
        ...


class FaissLists:
    """The lists of an index, in memory or mapped."""

    def __init__(self, faiss: Any, index: Any) -> None:
        self._view = faiss.rev_swig_ptr
        self._index = index  # which owns the lists
        self._lists = faiss.downcast_InvertedLists(inner_ivf(faiss, index).invlists)

    def piece(self, place: int) -> Piece:
        """Return what is in one list, without a copy."""
        count, width = self._lists.list_size(place), self._lists.code_size
        if not count:
            return np.empty((0, width), np.uint8), np.empty(0, np.int64)
        codes = self._view(self._lists.get_codes(place), count * width)
        return codes.reshape(count, width), self._view(self._lists.get_ids(place), count)


class _FileLists:
    """Lists that `_written` put into a file of their own."""

    def __init__(self, path: Path, sizes: NDArray[np.uint64], width: int) -> None:
        self._bytes = np.memmap(path, np.uint8, "r")
        self._sizes, self._width = sizes.astype(np.int64), width
        self._ends = np.cumsum(self._sizes * (width + _ID_BYTES))

    def piece(self, place: int) -> Piece:
        """Return what is in one list, without a copy."""
        count, end = int(self._sizes[place]), int(self._ends[place])
        middle = end - count * _ID_BYTES
        codes = self._bytes[middle - count * self._width : middle]
        return codes.reshape(count, self._width), self._bytes[middle:end].view(np.int64)


class Spool:
    """Collects vectors for a trained, empty IVF, and writes the whole.

    Parameters
    ----------
    faiss : module
    index : faiss.Index
        Trained and empty. Its lists are used.
    current : Job
        Whose memory is kept to, and whose folder (else the system's folder for temporary files)
        holds the files until they are merged. Nothing is left there, whatever happens.

    Raises
    ------
    ParameterError
        FAISS writes something behind the lists of such an index.
    DataError
        The disk is full or cannot be written.
    """

    def __init__(self, faiss: Any, index: Any, current: Job) -> None:
        self._faiss, self._index, self._job = faiss, index, current
        self._ivf = inner_ivf(faiss, index)
        self._width, self._count = self._ivf.code_size, self._ivf.nlist
        self._room = min(max(_LEAST_ROOM, current.memory // _SHARE), _MOST_ROOM)
        self._parts: list[Lists] = []
        self._ending = _LISTS.pack(b"ilar", self._count, self._width, b"sprs", 0)
        if not faiss.serialize_index(index).tobytes().endswith(self._ending):
            raise ParameterError.of("on_disk", "the lists of this factory are not last in its file")

    def __enter__(self) -> Spool:
        folder = self._job.folder
        with _disk(folder or "the folder for temporary files"):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._holder = tempfile.TemporaryDirectory(
                prefix="vwkit-faiss-", dir=folder, ignore_cleanup_errors=True
            )
        self._folder = Path(self._holder.name)
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.clear()
        self._holder.cleanup()

    @property
    def block(self) -> int:
        """Rows to give to `add` at a time."""
        dim: int = self._index.d
        return max(1, min(_LARGEST_BLOCK, self._room // (4 * dim)))

    def add(self, rows: Array, numbers: NDArray[np.int64]) -> None:
        """Take in vectors (n, d) float32 with their row numbers (n,)."""
        self._index.add_with_ids(rows, numbers)
        if self._index.ntotal * (self._width + _ID_BYTES) > self._room:
            self._put_away()

    def _put_away(self) -> None:
        path = self._folder / f"part-{len(self._parts)}"
        with _disk(path), path.open("wb") as file:
            sizes = self._written(file, [FaissLists(self._faiss, self._index)], None)
        self._parts.append(_FileLists(path, sizes, self._width))
        # `reset` would keep the memory of every list: with sorted data, in the end that of all.
        _give_lists(self._faiss, self._ivf)
        self._index.reset()

    def finish(self, earlier: Sequence[Lists] = (), gone: NDArray[np.bool_] | None = None) -> Path:
        """Write one index of all that was taken in, behind earlier lists.

        Parameters
        ----------
        earlier : sequence of Lists
        gone : (rows,) bool, optional
            Row numbers to leave out.

        Returns
        -------
        Path
            Of the file, which goes when the spool is left: who has it open keeps it.
        """
        if self._index.ntotal:
            self._put_away()
        path = self._folder / "index.faiss"
        with _disk(path), path.open("wb") as file:
            file.write(self._head(np.zeros(self._count, np.uint64)))
            sizes = self._written(file, [*earlier, *self._parts], gone)
            file.seek(0)
            file.write(self._head(sizes))
        return path

    def _head(self, sizes: NDArray[np.uint64]) -> bytes:
        """Return what an index begins with, up to the first list: always as long."""
        total = int(sizes.sum())
        holders = list(_counting(self._faiss, self._index))
        for part in holders:
            part.ntotal = total
        written = self._faiss.serialize_index(self._index).tobytes()
        for part in holders:
            part.ntotal = 0
        lists = _LISTS.pack(b"ilar", self._count, self._width, b"full", self._count)
        return bytes(written.removesuffix(self._ending)) + lists + sizes.tobytes()

    def _written(
        self, file: BinaryIO, sources: Sequence[Lists], gone: NDArray[np.bool_] | None
    ) -> NDArray[np.uint64]:
        """Write list after list, of each the codes and then the row numbers; return their sizes."""
        sizes = np.zeros(self._count, np.uint64)
        for place in range(self._count):
            if place % _CHECKED == 0:
                self._job.progress(place, self._count, "lists")
            pieces = [source.piece(place) for source in sources]
            if gone is not None:
                pieces = [_without(piece, gone) for piece in pieces]
            pieces = [piece for piece in pieces if len(piece[1])]
            for codes, _ in pieces:
                file.write(codes.data)
            for _, numbers in pieces:
                file.write(numbers.data)
            sizes[place] = sum(len(numbers) for _, numbers in pieces)
        return sizes


def inner_ivf(faiss: Any, index: Any) -> Any:
    """Return the IVF inside an index."""
    return next(part for part in parts(faiss, index) if isinstance(part, faiss.IndexIVF))


def learnt(faiss: Any, index: Any) -> Any:
    """Return an empty index that has learnt what this one has; nobody may search it meanwhile."""
    ivf = inner_ivf(faiss, index)
    held, owned = ivf.invlists, ivf.own_invlists
    holders = list(_counting(faiss, index))
    count = index.ntotal
    ivf.own_invlists = False  # or they would be freed
    try:
        _give_lists(faiss, ivf)
        for part in holders:
            part.ntotal = 0
        return faiss.deserialize_index(faiss.serialize_index(index))
    finally:
        ivf.replace_invlists(held, owned)
        for part in holders:
            part.ntotal = count


def _give_lists(faiss: Any, ivf: Any) -> None:
    """Give an IVF new, empty lists."""
    lists = faiss.ArrayInvertedLists(ivf.nlist, ivf.code_size)
    lists.this.disown()
    ivf.replace_invlists(lists, True)


def _counting(faiss: Any, index: Any) -> Iterator[Any]:
    """Yield the index and what is in it down to the IVF: all say how many vectors there are."""
    for part in parts(faiss, index):
        yield part
        if isinstance(part, faiss.IndexIVF):
            return


def _without(piece: Piece, gone: NDArray[np.bool_]) -> Piece:
    codes, numbers = piece
    # A saved file may hold any numbers.
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(gone)):
        raise ArtifactError(
            f"the lists hold a row that is none of the {len(gone)}; damaged, make the index again"
        )
    left = ~gone[numbers]
    return codes[left], numbers[left]


@contextlib.contextmanager
def _disk(path: Path | str) -> Iterator[None]:
    """Say in one line that the disk is full, or whatever else keeps a file from being written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: the lists cannot be written: {error.strerror}; make room there, or let TMPDIR "
            "name a folder on a larger disk"
        ) from None
