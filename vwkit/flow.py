"""The data path of one run: what each slot receives and gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.builtin.aggregated import Aggregated
from vwkit.builtin.readers import file_stream, open_stream
from vwkit.clusterer import Clusterer
from vwkit.collecting import collect
from vwkit.counted import Counted, at_most, count_pixels, counts_pixels, keeps_pixels
from vwkit.errors import DataError
from vwkit.extraction import extract, image_key, noted
from vwkit.featurizer import Featurizer
from vwkit.formats import VectorFile, open_vectors, oxford
from vwkit.formats.remote import Place
from vwkit.hashing import content_key, derive_seed, sample_rows
from vwkit.items import ok_rows
from vwkit.observing.observer import note_skipped
from vwkit.quantizer import Quantizer
from vwkit.remote import file_of, place_key
from vwkit.run import fitting_vectors
from vwkit.sparse import Sparse
from vwkit.spec import ImagesSource, Spec, Train, UrlsSource, open_source
from vwkit.stage_arrays import (
    local_stream,
    one_per_item,
    write_aggregated,
    write_arrays,
    write_stream,
    write_words,
)
from vwkit.stages import Stage, Stages, opened, set_late, signature, used_key
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
    """

    def __init__(self, spec: Spec, stages: Stages) -> None:
        self.spec = spec
        self.stages = stages
        self.cache = stages.cache
        self.items: list[Item] = []
        self.counts: dict[str, int] = {}
        self.beside: dict[str, int] = {}  # what the source holds that is no item
        self._data: Any = None  # Stream, array or Sparse: what the next slot receives
        self._key: Any = None  # what decided it
        self._ids: NDArray[np.int64] | None = None  # item rows of its rows, one row per item
        self._codes: Stream | None = None
        self._source: Stream | None = None  # the vectors that a spec names
        self._whole: Stream | None = None  # all that are in their file
        self._counted: Counted | None = None  # pixels that were counted, not told one by one

    def run(self) -> None:
        """Run every slot that the spec has."""
        if self.spec.images is not None:
            self._from_images(self.spec.images)
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

    def _from_images(self, source: ImagesSource | UrlsSource) -> None:
        # A picture that an output wrote among the photos is no photo when the spec is run again.
        own = {os.path.abspath(output.path) for output in self.spec.output}
        seed = derive_seed(self.spec.seed, "images")
        found = collect(source, seed, self.spec.run.on_error, without=own)
        self.items = found.items
        self.counts.update(found.counts)
        self.beside = found.beside
        featurizer = self.spec.featurizer
        if featurizer is None:
            raise DataError("images need a featurizer")
        if isinstance(featurizer, Aggregated):
            self._aggregated(featurizer)
            return
        if featurizer.trainable and not featurizer._fitted:
            featurizer = self._trained(featurizer)
        else:
            self._saved("featurizer", featurizer)
        if counts_pixels(self.spec):
            self._count(featurizer)
            return
        stage = self._features("features", featurizer)
        arrays = stage.open().arrays()
        self._key = stage.key
        if featurizer.local:
            self._data = local_stream(arrays, self._kept(), featurizer.kind)
            self.counts["descriptors"] = len(arrays["vectors"])
        else:
            self._data = one_per_item(arrays)
            self._ids = ok_rows(self.items)

    def _aggregated(self, featurizer: Aggregated) -> None:
        """Local features → vocabulary → words → one vector per image; each step is a stage."""
        local = featurizer.local_
        stage = self._features("featurizer.local", local)
        stream = local_stream(stage.open().arrays(), self._kept(), local.kind)
        self.counts["descriptors"] = stream.count()
        if stream.count() == 0:
            raise DataError(
                f"images: {local.name} found no descriptor in any of {len(self._kept())} images; "
                "nothing to make words of"
            )
        model = featurizer.vocabulary
        if model._fitted:
            made: Any = signature(model, self.cache, late=True)
        else:
            name = "featurizer.vocabulary"
            data, key = self._training(name, stream, stage.key)
            inputs = {"data": key, "vocabulary": signature(model, self.cache)}
            fitted = self.stages.run(
                name, inputs, lambda path: _fit_and_save(model, data, path), given=data
            )
            made = used_key(fitted, model)
            featurizer.vocabulary = model = opened(fitted, model)
        words = featurizer.words
        self.counts["words"] = featurizer.word_count
        said = self.stages.run(
            "featurizer.words",
            {"data": stage.key, "vocabulary": made},
            lambda path: write_words(path, words, stream),
            given=stream,
            unit="descriptors",
        )
        arrays = said.open().arrays()
        key = {"words": said.key, "featurizer": signature(featurizer, self.cache)}

        def learn(path: Path) -> None:
            featurizer.learn(arrays["words"], arrays["offsets"])
            featurizer.save(path)

        learned = self.stages.run("featurizer", key, learn)
        self.spec.featurizer = ready = opened(learned, featurizer)
        vectors = self.stages.run(
            "vectors",
            {"words": said.key, "featurizer": used_key(learned, featurizer)},
            lambda path: write_aggregated(path, ready, arrays["words"], stream),
            given=len(self._kept()),
            unit="images",
        )
        self._data = one_per_item(vectors.open().arrays())
        self._key = vectors.key
        self._ids = ok_rows(self.items)

    def _count(self, featurizer: Any) -> None:
        """Count equal pixels once, with weights, for a clusterer that takes them."""
        # Colours are counted before they are put into a space, so the cache is the same for all.
        key = content_key({"colours": featurizer.revision})
        hashes = [image_key(item, self.cache) for item in self.items]
        every, on_error = keeps_pixels(self.spec), self.spec.run.on_error
        stage = self.stages.run(
            "colours",
            {"images": hashes, "colours": key, "every": every, "on_error": on_error},
            lambda path: count_pixels(
                path, key, self.items, hashes, self.cache, on_error, every=every
            ),
            given=len(self.items),
            unit="images",
        )
        self._noted(stage)
        counted = Counted.of(stage.open().arrays(), featurizer.space)
        self.counts["descriptors"] = int(counted.counts.sum())
        self.counts["colours"] = len(counted.colours)
        clusterer = self.spec.clusterer
        # Rows to learn from are drawn from all pixels, not from all colours.
        folded = clusterer is not None and clusterer.supports_weights
        if folded and "clusterer" not in self.spec.trains:
            self._counted = counted
            self._data = counted.weighted()
        else:
            self._data = counted.every(self._kept())
        self._key = {"colours": stage.key, "space": featurizer.space}

    def _trained(self, featurizer: Featurizer) -> Featurizer:
        paths = [item.path for item in self._kept()]
        hashes = [self.cache.file_key(Path(str(path))) for path in paths]
        key = {"images": hashes, "featurizer": signature(featurizer, self.cache)}

        def fit(path: Path) -> None:
            featurizer.fit(paths)
            featurizer.save(path)

        made: Featurizer = opened(self.stages.run("featurizer", key, fit), featurizer)
        return made

    def _saved(self, name: str, featurizer: Featurizer) -> None:
        """Keep the featurizer with the run, so that queries go the same way."""
        stage = self.stages.run(name, signature(featurizer, self.cache), featurizer.save)
        set_late(stage.folder, featurizer)

    def _features(self, name: str, featurizer: Featurizer) -> Stage:
        """Extract features, each image once whatever its name; note what was skipped."""
        described = signature(featurizer, self.cache)
        key = content_key(described)
        hashes = [image_key(item, self.cache) for item in self.items]
        stage = self.stages.run(
            name,
            {"images": hashes, "featurizer": key, "on_error": self.spec.run.on_error},
            lambda path: extract(
                path, featurizer, key, self.items, hashes, self.cache, self.spec.run.on_error
            ),
            given=len(self.items),
            unit="images",
        )
        self._noted(stage)
        for user in (*self.spec.rerank, *self.spec.output):
            if "local featurizer" in user.needs and "keypoints" not in stage.open().arrays():
                raise DataError(
                    f"{user.name} compares pictures by keypoints, and {featurizer.name} gives none; "
                    "take a local featurizer that does, such as sift"
                )
        return stage

    def _noted(self, stage: Stage) -> None:
        """Note what became of the items."""
        self.items = noted(self.items, stage.open())
        note_skipped(self.stages.job.within(stage.name), self.items)
        if not self._kept():
            raise DataError(
                f"images: none of {len(self.items)} could be used; the first: {self.items[0].reason}"
            )

    def _kept(self) -> list[Item]:
        return [item for item in self.items if item.status == "ok"]

    def _from_vectors(self) -> None:
        source = self.spec.vectors
        if source is None:
            raise DataError("a spec needs images or vectors")
        place = file_of(source.path)
        stream: Stream = open_source(source, place)
        self._key = {
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
        self._data = self._source = stream

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

    def _training(self, slot: str, data: Any, key: Any) -> tuple[Any, Any]:
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
        self._data = fitting_vectors(transform, self._data)
        data, key = self._training(name, self._data, self._key)
        described = signature(transform, self.cache)
        fits = transform._needs_fit() and not transform._fitted
        inputs = {"data": key if fits else None, "transform": described}
        stage = self.stages.run(
            name,
            inputs,
            lambda path: _fit_and_save(transform, data, path, fit=fits),
            given=data if fits else None,
        )
        fitted = opened(stage, transform)
        self.spec.transform[i] = fitted
        self._data = fitted.transform(self._data)
        self._key = {"data": self._key, "transform": used_key(stage, transform)}

    def _quantizer(self, quantizer: Quantizer) -> None:
        data, key = self._training("quantizer", self._data, self._key)
        inputs = {"data": key, "quantizer": signature(quantizer, self.cache)}
        stage = self.stages.run(
            "quantizer", inputs, lambda path: _fit_and_save(quantizer, data, path), given=data
        )
        self.spec.quantizer = fitted = opened(stage, quantizer)
        wanted = any("quantizer" in output.needs for output in self.spec.output)
        clusterer = self.spec.clusterer
        if wanted or (clusterer is not None and clusterer.consumes == "codes"):
            codes = self.stages.run(
                "codes",
                {"data": self._key, "quantizer": used_key(stage, quantizer)},
                lambda path: write_stream(path, "codes", fitted.encode(_as_stream(self._data))),
                given=self._data,
            )
            self._codes = Stream.from_array(codes.open().arrays()["codes"], kind=fitted.codes_kind)
            self._codes_key = codes.key

    def _clusterer(self, clusterer: Clusterer) -> None:
        on_codes = clusterer.consumes == "codes"
        whole: Any = self._codes if on_codes else self._data
        whole_key: Any = self._codes_key if on_codes else self._key
        data, key = self._training("clusterer", whole, whole_key)
        if on_codes and data is not whole and self.spec.trains["clusterer"].path is not None:
            data = self.spec.quantizer.encode(data)  # type: ignore[union-attr]
        quantizer = self.spec.quantizer if on_codes else None
        weights = None
        if self._counted is not None:
            clusterer = at_most(clusterer, len(self._counted.colours))
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
            _log.info("%s", fitted.summary("rows" if self._ids is None else "images"))
        if self._counted is not None and self._counted.pixels is not None:
            each = self._counted.spread(fitted.labels[:, None], kind="labels")
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
            "data": self._key,
            "ids": None if self._ids is None else self._ids.tolist(),
            "index": signature(index, self.cache),
        }

        def build(path: Path) -> None:
            index.build(fitting_vectors(index, self._data), self._ids)
            index.save(path)

        stage = self.stages.run("index", inputs, build, given=self._data)
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


def _fit_and_save(backend: Any, data: Any, path: Path, *, fit: bool = True) -> None:
    if fit and not backend._fitted:
        backend.fit(data)
    backend.save(path)
