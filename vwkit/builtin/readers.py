"""Descriptor files as Streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vwkit.base import Field, backend
from vwkit.codes import kind_of, read_note
from vwkit.featurizer import Reader
from vwkit.formats import VectorFile, open_vectors
from vwkit.formats.remote import Place
from vwkit.stream import Stream, chunk_rows
from vwkit.types import Array

__all__ = ["READERS", "FileReader", "file_stream", "open_stream"]


def open_stream(path: Place | str, format: str | None = None, *, partial: bool = False) -> Stream:
    """Open a descriptor file as a Stream; its format is sniffed where it is not given."""
    file = open_vectors(path, format, partial=partial)
    if file.format == "oxford-sift":
        return file_stream(file, kind="sift")
    maker = read_note(file.path) if isinstance(file.path, Path) else None
    return file_stream(file, kind=None if maker is None else kind_of(maker))


def file_stream(file: VectorFile, *, kind: str | None) -> Stream:
    """Return an opened descriptor file as a Stream."""
    step = chunk_rows(file.dim * file.dtype.itemsize)

    def chunks() -> Iterator[Array]:
        return file.chunks(step)

    stream = Stream(chunks, dim=file.dim, dtype=file.dtype, rows=file.rows, kind=kind)
    stream._array = file.array
    stream.step = step
    if file.rows is not None:
        stream._random = file.take
        stream.reader = file
    return stream


class FileReader(Reader):
    """Reads one descriptor format."""

    #: The format's name in `vwkit.formats`.
    format: ClassVar[str]

    deterministic = True
    reads_urls = True
    choose = "descriptors that are in such a file; `vectors: {path: …}` finds it by itself."

    partial: bool = Field(
        default=False, doc="Accept a file that ends early and use its whole rows."
    )

    def _read(self, path: Place) -> Stream:
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
