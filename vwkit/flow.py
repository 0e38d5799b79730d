"""The data path of one run: what each slot receives and gives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.builtin.readers import file_stream, open_stream
from vwkit.clusterer import Clusterer
from vwkit.collecting import collect
from vwkit.counted import Counted, at_most
from vwkit.errors import DataError
from vwkit.extraction import image_key
from vwkit.flow_images import fit_and_save, from_images
from vwkit.formats import VectorFile, open_vectors, oxford
from vwkit.formats.remote import Place
from vwkit.hashing import derive_seed, rows_key, sample_rows
from vwkit.quantizer import Quantizer
from vwkit.remote import file_of, place_key
from vwkit.run import fitting_vectors
from vwkit.sparse import Sparse
from vwkit.spec import Spec, Train, open_source
from vwkit.stage_arrays import write_arrays, write_stream
from vwkit.stages import Stages, opened, signature, used_key
from vwkit.stream import Stream
from vwkit.types import Array, Features, Item

__all__ = ["Flow"]

_log = logging.getLogger("vwkit")


class Flow:
    """Runs the slots of a spec in order.

    Attributes
    ----------
    items : list of Item
        The inputs, with what became of them.
    counts : dict of str to int
        What a person wants to know: descriptors, words, …
    beside : dict of str to int
        What the source holds that is no item.
    data : Stream, array or Sparse
        What the next slot receives.
    key : plain data
        What decided it.
    ids : (n,) int64 or None
        The items of its rows, where there is one row per item.
    counted : Counted or None
        Pixels that were counted, not told one by one.
    """

    def __init__(self, spec: Spec, stages: Stages) -> None:
        self.spec = spec
        self.stages = stages
        self.cache = stages.cache
        self.items: list[Item] = []
        self.counts: dict[str, int] = {}
        self.beside: dict[str, int] = {}
        self.data: Any = None
        self.key: Any = None
        self.ids: NDArray[np.int64] | None = None
        self._codes: Stream | None = None
        self._source: Stream | None = None  # the vectors that a spec names
        self._whole: Stream | None = None  # all that are in their file
        self.counted: Counted | None = None

    def run(self) -> None:
        """Run every slot that the spec has."""
        if self.spec.images is not None:
            from_images(self, self.spec.images)
        else:
            self._from_vectors()
        for i, transform in enumerate(self.spec.transform):
            self._transform(i, transform)
        if self.spec.quantizer is not None:
            self._quantizer(self.spec.quantizer)
        if self.spec.clusterer is not None:
            self._clusterer(self.spec.clusterer)
        if self.spec.index is not None:
            self._index()
        if self._source is not None:
            # A compressed file is not read only to be counted: by now a stage has done that.
            known = self._source if self._source.rows is not None else self._codes or self._source
            self.counts = {"descriptors": known.count(), **self.counts}

    def left_out(self) -> dict[str, int | None]:
        """Return how much of the source is no item or row of the run, and why."""
        beside: dict[str, int | None] = dict(self.beside)
        whole, taken = self._whole, self._source
        if whole is not None and taken is not None and whole is not taken:
            rows = None if whole.rows is None else whole.rows - taken.count()
            beside["rows left out"] = rows
        return beside

    # Where data come from

    def kept(self) -> list[Item]:
        """Return the items that were not skipped."""
        return [item for item in self.items if item.status == "ok"]

    def _from_vectors(self) -> None:
        source = self.spec.vectors
        if source is None:
            raise DataError("a spec needs images or vectors")
        place = file_of(source.path)
        stream: Stream = open_source(source, place)
        self.key = {
            "file": place_key(self.cache, place),
            "reader": signature(source.reader, self.cache) if source.reader else None,
            "limit": source.limit,
            "sample": [source.sample, self.spec.seed] if source.sample else None,
        }
        self.items = [Item(0, source.path.name, str(source.path))]
        if source.images is not None and source.counts is not None:
            self._with_items(stream, place, source.images, source.counts)
        self._whole = stream
        if source.sample is not None:
            rows = sample_rows(
                stream.count(), source.sample, derive_seed(self.spec.seed, "vectors")
            )
            stream = Stream.from_array(stream.take(rows), kind=stream.kind)
        if source.limit is not None:
            stream = _first(stream, source.limit)
        self.data = self._source = stream

    def _with_items(self, stream: Stream, path: Place, images: Path, counts: Path) -> None:
        names = oxford.read_image_list(images)
        numbers = oxford.read_counts(counts, names)
        reader = self.spec.vectors.reader if self.spec.vectors is not None else None
        named = getattr(reader, "format", None)
        oxford.check_counts(open_vectors(path, named), numbers)
        stream.offsets = oxford.offsets_from_counts(numbers)
        self.items = [
            Item(row, name.removeprefix("oxc1_") + ".jpg") for row, name in enumerate(names)
        ]
        stream.items = self.items
        self.stages.run(
            "source",
            {"offsets": stream.offsets.tolist()},
            lambda path: write_arrays(path, "source", {"offsets": stream.offsets}),
        )

    # Slots

    def training(self, slot: str, data: Any, key: Any) -> tuple[Any, Any]:
        """Return what a slot learns from, and what decided it."""
        train = self.spec.trains.get(slot)
        if train is None:
            return data, key
        seed = derive_seed(self.spec.seed, f"{slot}.train")
        described = {"from": key, "rows": train.rows, "seed": seed}
        if train.path is not None:
            place = file_of(train.path)
            data = open_stream(place)
            described["from"] = place_key(self.cache, place)
        elif train.images is not None:
            data, hashes = self._features_of(train)
            described["from"] = [
                hashes,
                None
                if self.spec.featurizer is None
                else signature(self.spec.featurizer, self.cache),
            ]
        if train.path is not None or train.images is not None:
            described["transform"] = [signature(one, self.cache) for one in self._transforms(slot)]
            for transform in self._transforms(slot):
                data = transform.transform(data)
        if train.rows is not None:
            data = _random_rows(data, train.rows, seed)
        return data, described

    def _transforms(self, slot: str) -> list[Any]:
        """Return the transforms before a slot."""
        if slot.startswith("featurizer"):
            return []
        if slot.startswith("transform["):
            return self.spec.transform[: int(slot[10:-1])]
        return self.spec.transform

    def _features_of(self, train: Train) -> tuple[Any, list[str]]:
        featurizer: Any = self.spec.featurizer
        if featurizer is None or train.images is None:
            raise DataError("train.images needs a featurizer; use train.path for vectors")
        featurizer = getattr(featurizer, "local_", featurizer)
        listed = collect(train.images, derive_seed(self.spec.seed, "images")).items
        items = [item for item in listed if item.status == "ok"]
        found = featurizer.features([item.path for item in items], on_error="skip")
        vectors = [one.vectors for one in found if isinstance(one, Features)]
        if not vectors:
            raise DataError(f"train.images: no usable image in {train.images.path}")
        data = Stream.from_array(np.concatenate(vectors), kind=featurizer.kind)
        return data, [image_key(item, self.cache) for item in items]

    def _transform(self, i: int, transform: Any) -> None:
        name = f"transform[{i}]"
        self.data = fitting_vectors(transform, self.data)
        data, key = self.training(name, self.data, self.key)
        described = signature(transform, self.cache)
        fits = transform._needs_fit() and not transform._fitted
        inputs = {"data": key if fits else None, "transform": described}
        stage = self.stages.run(
            name,
            inputs,
            lambda path: fit_and_save(transform, data, path, fit=fits),
            given=data if fits else None,
        )
        fitted = opened(stage, transform)
        self.spec.transform[i] = fitted
        self.data = fitted.transform(self.data)
        self.key = {"data": self.key, "transform": used_key(stage, transform)}

    def _quantizer(self, quantizer: Quantizer) -> None:
        data, key = self.training("quantizer", self.data, self.key)
        inputs = {"data": key, "quantizer": signature(quantizer, self.cache)}
        stage = self.stages.run(
            "quantizer", inputs, lambda path: fit_and_save(quantizer, data, path), given=data
        )
        self.spec.quantizer = fitted = opened(stage, quantizer)
        wanted = any("quantizer" in output.needs for output in self.spec.output)
        clusterer = self.spec.clusterer
        if wanted or (clusterer is not None and clusterer.consumes == "codes"):
            codes = self.stages.run(
                "codes",
                {"data": self.key, "quantizer": used_key(stage, quantizer)},
                lambda path: write_stream(path, "codes", fitted.encode(_as_stream(self.data))),
                given=self.data,
            )
            self._codes = Stream.from_array(codes.open().arrays()["codes"], kind=fitted.codes_kind)
            self._codes_key = codes.key

    def _clusterer(self, clusterer: Clusterer) -> None:
        on_codes = clusterer.consumes == "codes"
        whole: Any = self._codes if on_codes else self.data
        whole_key: Any = self._codes_key if on_codes else self.key
        data, key = self.training("clusterer", whole, whole_key)
        if on_codes and data is not whole and self.spec.trains["clusterer"].path is not None:
            data = self.spec.quantizer.encode(data)  # type: ignore[union-attr]
        quantizer = self.spec.quantizer if on_codes else None
        weights = None
        if self.counted is not None:
            clusterer = at_most(clusterer, len(self.counted.colours))
            weights = data.columns["weights"]
        inputs = {"data": key, "clusterer": signature(clusterer, self.cache)}

        def fit(path: Path) -> None:
            clusterer.fit(fitting_vectors(clusterer, data), weights, quantizer=quantizer)
            clusterer.save(path)

        stage = self.stages.run("clusterer", inputs, fit, given=data)
        self.spec.clusterer = fitted = opened(stage, clusterer)
        if fitted.has_centers:
            self.counts["words"] = len(fitted.centers)
        if not fitted.fixed_k:
            _log.info("%s", fitted.summary("rows" if self.ids is None else "images"))
        if self.counted is not None and self.counted.pixels is not None:
            each = self.counted.spread(fitted.labels[:, None], kind="labels")
            self.stages.run(
                "labels",
                {"data": whole_key, "clusterer": used_key(stage, clusterer)},
                lambda path: write_stream(path, "labels", each, flat=True),
                given=each,
            )
        if data is not whole and fitted.supports_predict:
            # It learned from other rows than the run's; these get their words now.
            self.stages.run(
                "labels",
                {"data": whole_key, "clusterer": used_key(stage, clusterer)},
                lambda path: write_stream(
                    path,
                    "labels",
                    fitted.predict(_as_stream(fitting_vectors(fitted, whole))),
                    flat=True,
                ),
                given=whole,
            )

    def _index(self) -> None:
        index = self.spec.index
        if index is None:
            return
        inputs = {
            "data": self.key,
            "ids": None if self.ids is None else rows_key(self.ids),
            "index": signature(index, self.cache),
        }

        def build(path: Path) -> None:
            index.build(fitting_vectors(index, self.data), self.ids)
            index.save(path)

        stage = self.stages.run("index", inputs, build, given=self.data)
        self.spec.index = ready = opened(stage, index)
        self.stages.holds("index", len(ready))
        self.counts["indexed"] = len(ready)


# Small parts -----------------------------------------------------------------------------------


def _as_stream(data: Any) -> Stream:
    return data if isinstance(data, Stream) else Stream.from_array(data)


def _first(stream: Stream, rows: int) -> Stream:
    if stream.array is not None:
        return Stream.from_array(stream.array[:rows], kind=stream.kind)
    if isinstance(stream.reader, VectorFile):
        # Then nothing after them is read ahead.
        return file_stream(stream.reader.first(rows), kind=stream.kind)

    def chunks(start: int = 0) -> Iterator[Array]:
        left = rows - start
        for chunk in stream._chunks_from(start) if start else stream.chunks():
            yield chunk[:left]
            left -= min(left, len(chunk))
            if left == 0:
                return

    known = None if stream.rows is None else min(rows, stream.rows)
    first = Stream(chunks, dim=stream.dim, dtype=stream.dtype, rows=known, kind=stream.kind)
    first.reader, first.step, first._skipping = stream.reader, stream.step, chunks
    return first


def _random_rows(data: Any, rows: int, seed: int) -> Any:
    if isinstance(data, Sparse):
        raise DataError("train rows cannot be drawn from sparse vectors")
    stream = _as_stream(data)
    picked = sample_rows(stream.count(), rows, seed)
    return Stream.from_array(stream.take(picked), kind=stream.kind)
