"""Pixels of a run counted: each colour once, with how often it occurs.

What clusters pixels by colour gets the distinct colours with weights: the same clusters, at a hundredth
of the work. Opacity is kept: if any picture is transparent anywhere, colours are vectors of four numbers
(see `vwkit.palettes.colours`). Where something needs a row for each pixel, the pixels are kept, too, as
colours of four bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import write_artifact
from vwkit.base import Field, backend
from vwkit.builtin.pixels import Pixels
from vwkit.cache import Cache
from vwkit.clusterer import Clusterer
from vwkit.errors import DataError, ImageError
from vwkit.extraction import batch_features
from vwkit.featurizer import Featurizer
from vwkit.image import Image
from vwkit.jobs import job
from vwkit.palettes.colours import colour_vectors
from vwkit.palettes.distinct import Counter, codes_of, colours_of, packed, places_of
from vwkit.spec import Spec
from vwkit.stream import Stream, chunk_rows, row_spans
from vwkit.types import Array, Features, Item, Skipped

__all__ = ["Counted", "at_most", "count_pixels", "counts_pixels", "keeps_pixels"]

_IMAGES_AT_ONCE = 8


def counts_pixels(spec: Spec) -> bool:
    """Tell whether a spec's pixels go straight to a clusterer, so that they may be counted."""
    clusterer = spec.clusterer
    return (
        isinstance(spec.featurizer, Pixels)
        and clusterer is not None
        and clusterer.consumes == "vectors"
        and not spec.transform
        and spec.quantizer is None
        and spec.index is None
    )


def keeps_pixels(spec: Spec) -> bool:
    """Tell whether something needs a row for each pixel."""
    weighted = spec.clusterer is not None and spec.clusterer.supports_weights
    trained = "clusterer" in spec.trains
    # Without any output, whoever asked for the run wants to look at it from Python.
    needed = not spec.output or any(output.every_row for output in spec.output)
    return needed or trained or not weighted


@backend("pixel-codes")
class _Codes(Featurizer):
    """Colours as numbers: of each pixel, or the distinct ones and their counts."""

    local = True
    deterministic = True
    thread_safe = True

    every: bool = Field(default=False, doc="Whether to give each pixel.")

    @property
    def dim(self) -> int:
        return 1 if self.every else 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint32 if self.every else np.int64)

    def _extract(self, images: list[Image]) -> list[Features]:
        return [Features(self._numbers(image)) for image in images]

    def _numbers(self, image: Image) -> Array:
        codes = codes_of(image)
        if self.every:
            return codes[:, None]
        counter = Counter()
        counter.add(codes)
        found, counts = counter.result()
        return np.stack([found.astype(np.int64), counts], axis=1)


def count_pixels(
    path: Path, key: str, items: list[Item], hashes: list[str], cache: Cache, on_error: str,
    *, every: bool,
) -> None:  # fmt: skip
    """Write the distinct colours of all images and their counts; with `every`, each pixel's, too.

    Memory grows with the distinct colours alone.
    """
    # Nothing is kept of a pass that is cut short but each image's colours, in the cache: counting
    # those again is quick.
    current, counter = job(), Counter()
    codes = _Codes(every=every)
    sizes = np.zeros((len(items), 2), np.int64)
    skipped: list[list[Any]] = []
    counts: list[int] = []
    with write_artifact(path, {"role": "stage", "name": "colours"}) as draft:
        pixels = draft.growing("pixels", None, np.uint32) if every else None
        for start, stop in row_spans(len(items), _IMAGES_AT_ONCE):
            span = slice(start, stop)
            batch = batch_features(codes, f"{key}-{every}", items[span], hashes[span], cache)
            for row, found in enumerate(batch, start):
                if isinstance(found, Skipped):
                    if on_error == "stop":
                        raise ImageError(found.reason)
                    skipped.append([row, found.reason.removeprefix(f"{items[row].path}: ")])
                    continue
                if found.size is not None:
                    sizes[row] = found.size
                if pixels is not None:
                    counter.add(found.vectors[:, 0])
                    pixels.append(found.vectors[:, 0])
                    counts.append(len(found.vectors))
                else:
                    counter.add(found.vectors[:, 0].astype(np.uint32), found.vectors[:, 1])
                    counts.append(int(found.vectors[:, 1].sum()))
            current.progress(stop, len(items), "images", pixels=float(sum(counts)))
        if pixels is not None:
            pixels.close()
        if counts:
            distinct, often = counter.result()
            draft.array("colours", colours_of(distinct))
            draft.array("counts", often)
        draft.array("offsets", np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
        draft.array("sizes", sizes)
        draft.manifest["skipped"] = skipped


@dataclass
class Counted:
    """Counted pixels, as the stage `colours` keeps them.

    Attributes
    ----------
    colours : (m, 3) or (m, 4) uint8
    counts : (m,) int64
    offsets : (items + 1,) int64
        Pixels ``offsets[i]`` to ``offsets[i + 1]`` are those of item i.
    pixels : (n,) uint32 or None
        Each pixel's colour, where they were kept.
    space : str
    """

    colours: NDArray[np.uint8]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    pixels: NDArray[np.uint32] | None
    space: str

    @classmethod
    def of(cls, arrays: dict[str, Array], space: str) -> Counted:
        """Take the arrays of the stage."""
        return cls(
            np.asarray(arrays["colours"]),
            np.asarray(arrays["counts"]),
            arrays["offsets"],
            arrays.get("pixels"),
            space,
        )

    @property
    def kind(self) -> str:
        """What the vectors are."""
        return f"pixels-{self.space}" + ("-alpha" if self.colours.shape[1] == 4 else "")

    def weighted(self) -> Stream:
        """Return the distinct colours as vectors, with the column ``weights``."""
        vectors = colour_vectors(self.colours, self.space)
        weights = self.counts.astype(np.float64)
        return Stream.from_array(vectors, columns={"weights": weights}, kind=self.kind)

    def every(self, items: list[Item] | None = None) -> Stream:
        """Return one vector for each pixel, in order."""
        vectors = colour_vectors(self.colours, self.space)
        return self.spread(vectors, offsets=self.offsets, items=items, kind=self.kind)

    def spread(self, values: Array, **aligned: Any) -> Stream:
        """Return for each pixel what belongs to its colour, (m, d) → Stream of (n, d)."""
        if self.pixels is None:
            raise DataError(
                "this run counted equal pixels once and kept nothing for each pixel; "
                "add the output labels to its spec"
            )
        pixels, codes = self.pixels, packed(self.colours)
        order = np.argsort(codes, kind="stable")
        ranked = codes[order]
        step = chunk_rows(8 * max(1, values.shape[1]))

        def taken(part: Array) -> Array:
            return np.ascontiguousarray(values[order[places_of(np.asarray(part), ranked)]])

        def chunks(begin: int = 0) -> Iterator[Array]:
            while begin < len(pixels):
                stop = begin + step - begin % step
                yield taken(pixels[begin:stop])
                begin = stop

        dim, dtype = values.shape[1], values.dtype
        stream = Stream(chunks, dim=dim, dtype=dtype, rows=len(pixels), **aligned)
        stream._random, stream._skipping = (lambda rows: taken(pixels[rows])), chunks
        return stream


def at_most(clusterer: Clusterer, rows: int) -> Clusterer:
    """Return a clusterer with no more clusters than there are colours: then these are the palette."""
    k = getattr(clusterer, "k", None)
    if not (clusterer.fixed_k and isinstance(k, int) and k > rows):
        return clusterer
    return dataclasses.replace(clusterer, k=rows)  # type: ignore[type-var]
