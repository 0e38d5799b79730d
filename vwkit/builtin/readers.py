"""Descriptor files as Streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vwkit.base import Field, backend
from vwkit.codes import kind_of, read_note
from vwkit.featurizer import Reader
from vwkit.formats import open_vectors
from vwkit.stream import Stream, chunk_rows
from vwkit.types import Array

__all__ = ["READERS", "FileReader", "open_stream"]


def open_stream(path: Path, format: str | None = None, *, partial: bool = False) -> Stream:
    """Open a descriptor file as a Stream; its format is sniffed where it is not given."""
    file = open_vectors(path, format, partial=partial)
    step = chunk_rows(file.dim * file.dtype.itemsize)

    def chunks() -> Iterator[Array]:
        return file.chunks(step)

    stream = Stream(chunks, dim=file.dim, dtype=file.dtype, rows=file.rows)
    stream._array = file.array
    if file.rows is not None:
        stream._random = file.take
    if file.format == "oxford-sift":
        stream.kind = "sift"
    elif (maker := read_note(path)) is not None:
        stream.kind = kind_of(maker)
    return stream


class FileReader(Reader):
    """Reads one descriptor format."""

    #: The format's name in `vwkit.formats`.
    format: ClassVar[str]

    deterministic = True
    choose = "descriptors that are in such a file; `vectors: {path: …}` finds it by itself."

    partial: bool = Field(
        default=False, doc="Accept a file that ends early and use its whole rows."
    )

    def _read(self, path: Path) -> Stream:
        return open_stream(path, self.format, partial=self.partial)


def _reader(format: str, doc: str) -> type[FileReader]:
    body: dict[str, Any] = {"format": format, "__doc__": doc, "__module__": __name__}
    made: type[FileReader] = type(f"{format.title().replace('-', '')}Reader", (FileReader,), body)
    return backend(format)(made)


READERS: list[type[Any]] = [
    _reader("fvecs", "TEXMEX ``.fvecs`` (also ``.gz``): float32 vectors."),
    _reader("ivecs", "TEXMEX ``.ivecs`` (also ``.gz``): int32 vectors, such as ground truth."),
    _reader("bvecs", "TEXMEX ``.bvecs`` (also ``.gz``): uint8 vectors, such as SIFT1B."),
    _reader("npy", "A NumPy ``.npy`` file of (n, d) numbers."),
    _reader("oxford-sift", "The official Oxford5k descriptors: 128 uint8 a row, 12 spare bytes."),
    _reader("fbin", "Big-ANN ``.fbin``: float32 vectors."),
    _reader("u8bin", "Big-ANN ``.u8bin``: uint8 vectors."),
    _reader("i8bin", "Big-ANN ``.i8bin``: int8 vectors."),
    _reader("ibin", "Big-ANN ``.ibin``: int32 vectors."),
]
