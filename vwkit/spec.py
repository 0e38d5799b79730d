"""A checked spec: its sources, slots and settings, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vwkit.around import Executor
from vwkit.base import Backend
from vwkit.clusterer import Clusterer
from vwkit.errors import ParameterError
from vwkit.featurizer import Featurizer, Reader
from vwkit.index import Index
from vwkit.quantizer import Quantizer
from vwkit.remote import UrlFile, file_of
from vwkit.source import Source
from vwkit.transform import Transform

__all__ = [
    "FORMAT",
    "KEYS",
    "ImagesSource",
    "RunSettings",
    "Spec",
    "Train",
    "UrlsSource",
    "VectorsSource",
    "bytes_of",
    "open_source",
]

FORMAT = 1
KEYS = (
    "vwkit", "seed", "images", "vectors", "featurizer", "transform", "quantizer", "clusterer",
    "index", "rerank", "evaluate", "output", "run",
)  # fmt: skip

_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
          "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}  # fmt: skip


@dataclass(frozen=True)
class ImagesSource:
    """Where the images come from: a folder or file, with a file that describes them or without."""

    path: Path
    pattern: str | None = None
    limit: int | None = None
    sample: int | None = None
    metadata: Path | None = None
    file_field: str | None = None
    id_field: str | None = None
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UrlsSource:
    """Where the images come from: the URLs in a metadata file; see `vwkit.downloading.Limits`."""

    urls: Path
    cache: Path
    url_field: str = "url"
    id_field: str | None = None
    fields: tuple[str, ...] | None = None
    limit: int | None = None
    sample: int | None = None
    parallel: int = 16
    per_host: int = 8
    timeout: float = 30.0
    max_bytes: int = 20_000_000
    retries: int = 3
    retry: str = "temporary"
    allow_private: bool = False

    @property
    def path(self) -> Path:
        """The file that says what the images are."""
        return self.urls


@dataclass(frozen=True)
class VectorsSource:
    """Where the vectors come from."""

    path: Path | UrlFile
    reader: Reader | None = None
    images: Path | None = None
    counts: Path | None = None
    limit: int | None = None
    sample: int | None = None


@dataclass(frozen=True)
class Train:
    """What a fitted slot learns from, instead of its own input."""

    path: Path | UrlFile | None = None
    images: ImagesSource | UrlsSource | None = None
    rows: int | None = None


@dataclass(frozen=True)
class RunSettings:
    """Budgets, where chunks are computed (None: on threads), and what to do with unreadable inputs."""

    memory: int | None = None
    threads: int | None = None
    executor: Executor | None = None
    on_error: str = "skip"


@dataclass
class Spec:
    """A checked spec.

    Attributes
    ----------
    source : Source
    seed : int
    images, vectors : ImagesSource or UrlsSource, VectorsSource, or None
    featurizer, quantizer, clusterer, index, evaluate : backends or None
    transform, rerank, output : lists of backends
    run : RunSettings
    trains : dict of slot path to Train
    """

    source: Source
    seed: int = 0
    images: ImagesSource | UrlsSource | None = None
    vectors: VectorsSource | None = None
    featurizer: Featurizer | None = None
    transform: list[Transform] = field(default_factory=list)
    quantizer: Quantizer | None = None
    clusterer: Clusterer | None = None
    index: Index | None = None
    rerank: list[Any] = field(default_factory=list)
    evaluate: Any = None
    output: list[Any] = field(default_factory=list)
    run: RunSettings = field(default_factory=RunSettings)
    trains: dict[str, Train] = field(default_factory=dict)

    def resolved(self) -> dict[str, Any]:
        """Return the whole spec as plain data: every default, seed and absolute path written out."""
        slots: dict[str, Any] = {"vwkit": FORMAT, "seed": self.seed}
        for name in ("images", "vectors"):
            value = getattr(self, name)
            if value is not None:
                slots[name] = _plain_fields(value)
        for name in ("featurizer", "quantizer", "clusterer", "index", "evaluate"):
            value = getattr(self, name)
            if value is not None:
                word = "protocol" if name == "evaluate" else "use"
                slots[name] = {word: value.name, **value.params()}
        if self.transform:
            slots["transform"] = [{"use": one.name, **one.params()} for one in self.transform]
        if self.rerank:
            slots["rerank"] = [{"use": one.name, **one.params()} for one in self.rerank]
        if self.output:
            slots["output"] = [{"write": one.name, **one.params()} for one in self.output]
        if self.trains:
            slots["trains"] = {name: _plain_fields(t) for name, t in self.trains.items()}
        slots["run"] = _plain_fields(self.run)
        return slots


def _plain_fields(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, item in vars(value).items():
        if isinstance(item, Backend):
            word = "use" if name == "reader" else name
            plain[word] = {"use": item.name, **item.params()}
        elif isinstance(item, (ImagesSource, UrlsSource, Train)):
            plain[name] = _plain_fields(item)
        elif isinstance(item, UrlFile):
            plain.update({key: said for key, said in vars(item).items() if said is not None})
        elif isinstance(item, tuple):
            plain[name] = list(item)
        elif item is not None:
            plain[name] = str(item) if isinstance(item, Path) else item
    return plain


def open_source(vectors: VectorsSource, place: Any = None) -> Any:
    """Open the stream of a vectors source; only its header is read.

    `place` is what `vwkit.remote.file_of` says of its path, where that was asked already.
    """
    from vwkit.builtin.readers import open_stream

    place = file_of(vectors.path) if place is None else place
    if vectors.reader is not None:
        return vectors.reader.read(place)
    return open_stream(place)


def bytes_of(value: Any) -> int:
    """Read an amount of memory: a number of bytes, or text such as ``4GB`` or ``512 MiB``.

    Raises
    ------
    ParameterError
    """
    if type(value) is int and value > 0:
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
    if match is None or match.group(2).upper() not in _UNITS or float(match.group(1)) <= 0:
        raise ParameterError(f"must be an amount such as 4GB or 512MiB; got {value!r}")
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])
