"""The data path from pictures to vectors: features, words of features, counted pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwkit.builtin.aggregated import Aggregated
from vwkit.collecting import collect
from vwkit.counted import Counted, count_pixels, counts_pixels, keeps_pixels
from vwkit.errors import DataError
from vwkit.extraction import extract, image_key, noted
from vwkit.featurizer import Featurizer
from vwkit.hashing import content_key, derive_seed
from vwkit.items import ok_rows
from vwkit.observing.observer import note_skipped
from vwkit.spec import ImagesSource, UrlsSource
from vwkit.stage_arrays import local_stream, one_per_item, write_aggregated, write_words
from vwkit.stages import Stage, opened, set_late, signature, used_key

if TYPE_CHECKING:
    from vwkit.flow import Flow

__all__ = ["fit_and_save", "from_images"]


def from_images(flow: Flow, source: ImagesSource | UrlsSource) -> None:
    """Find the pictures and make vectors of them: what the first transform receives."""
    # A picture that an output wrote among the photos is no photo when the spec is run again.
    own = {os.path.abspath(output.path) for output in flow.spec.output}
    seed = derive_seed(flow.spec.seed, "images")
    found = collect(source, seed, flow.spec.run.on_error, without=own)
    flow.items = found.items
    flow.counts.update(found.counts)
    flow.beside = found.beside
    featurizer = flow.spec.featurizer
    if featurizer is None:
        raise DataError("images need a featurizer")
    if isinstance(featurizer, Aggregated):
        _aggregated(flow, featurizer)
        return
    if featurizer.trainable and not featurizer._fitted:
        featurizer = _trained(flow, featurizer)
    else:
        _saved(flow, "featurizer", featurizer)
    if counts_pixels(flow.spec):
        _counted(flow, featurizer)
        return
    stage = _features(flow, "features", featurizer)
    arrays = stage.open().arrays()
    flow.key = stage.key
    if featurizer.local:
        flow.data = local_stream(arrays, flow.kept(), featurizer.kind)
        flow.counts["descriptors"] = len(arrays["vectors"])
    else:
        flow.data = one_per_item(arrays)
        flow.ids = ok_rows(flow.items)


def _aggregated(flow: Flow, featurizer: Aggregated) -> None:
    """Local features → vocabulary → words → one vector per image; each step is a stage."""
    local = featurizer.local_
    stage = _features(flow, "featurizer.local", local)
    stream = local_stream(stage.open().arrays(), flow.kept(), local.kind)
    flow.counts["descriptors"] = stream.count()
    if stream.count() == 0:
        raise DataError(
            f"images: {local.name} found no descriptor in any of {len(flow.kept())} images; "
            "nothing to make words of"
        )
    model = featurizer.vocabulary
    if model._fitted:
        made: Any = signature(model, flow.cache, late=True)
    else:
        name = "featurizer.vocabulary"
        data, key = flow.training(name, stream, stage.key)
        inputs = {"data": key, "vocabulary": signature(model, flow.cache)}
        fitted = flow.stages.run(
            name, inputs, lambda path: fit_and_save(model, data, path), given=data
        )
        made = used_key(fitted, model)
        featurizer.vocabulary = model = opened(fitted, model)
    words = featurizer.words
    flow.counts["words"] = featurizer.word_count
    said = flow.stages.run(
        "featurizer.words",
        {"data": stage.key, "vocabulary": made},
        lambda path: write_words(path, words, stream),
        given=stream,
        unit="descriptors",
    )
    arrays = said.open().arrays()
    key = {"words": said.key, "featurizer": signature(featurizer, flow.cache)}

    def learn(path: Path) -> None:
        featurizer.learn(arrays["words"], arrays["offsets"])
        featurizer.save(path)

    learned = flow.stages.run("featurizer", key, learn)
    flow.spec.featurizer = ready = opened(learned, featurizer)
    vectors = flow.stages.run(
        "vectors",
        {"words": said.key, "featurizer": used_key(learned, featurizer)},
        lambda path: write_aggregated(path, ready, arrays["words"], stream),
        given=len(flow.kept()),
        unit="images",
    )
    flow.data = one_per_item(vectors.open().arrays())
    flow.key = vectors.key
    flow.ids = ok_rows(flow.items)


def _counted(flow: Flow, featurizer: Any) -> None:
    """Count equal pixels once, with weights, for a clusterer that takes them."""
    # Colours are counted before they are put into a space, so the cache is the same for all.
    key = content_key({"colours": featurizer.revision})
    hashes = [image_key(item, flow.cache) for item in flow.items]
    every, on_error = keeps_pixels(flow.spec), flow.spec.run.on_error
    stage = flow.stages.run(
        "colours",
        {"images": hashes, "colours": key, "every": every, "on_error": on_error},
        lambda path: count_pixels(path, key, flow.items, hashes, flow.cache, on_error, every=every),
        given=len(flow.items),
        unit="images",
    )
    _noted(flow, stage)
    counted = Counted.of(stage.open().arrays(), featurizer.space)
    flow.counts["descriptors"] = int(counted.counts.sum())
    flow.counts["colours"] = len(counted.colours)
    clusterer = flow.spec.clusterer
    # Rows to learn from are drawn from all pixels, not from all colours.
    folded = clusterer is not None and clusterer.supports_weights
    if folded and "clusterer" not in flow.spec.trains:
        flow.counted = counted
        flow.data = counted.weighted()
    else:
        flow.data = counted.every(flow.kept())
    flow.key = {"colours": stage.key, "space": featurizer.space}


def _trained(flow: Flow, featurizer: Featurizer) -> Featurizer:
    paths = [item.path for item in flow.kept()]
    hashes = [flow.cache.file_key(Path(str(path))) for path in paths]
    key = {"images": hashes, "featurizer": signature(featurizer, flow.cache)}

    def fit(path: Path) -> None:
        featurizer.fit(paths)
        featurizer.save(path)

    made: Featurizer = opened(flow.stages.run("featurizer", key, fit), featurizer)
    return made


def _saved(flow: Flow, name: str, featurizer: Featurizer) -> None:
    """Keep the featurizer with the run, so that queries go the same way."""
    stage = flow.stages.run(name, signature(featurizer, flow.cache), featurizer.save)
    set_late(stage.folder, featurizer)


def _features(flow: Flow, name: str, featurizer: Featurizer) -> Stage:
    """Extract features, each image once whatever its name; note what was skipped."""
    described = signature(featurizer, flow.cache)
    key = content_key(described)
    hashes = [image_key(item, flow.cache) for item in flow.items]
    stage = flow.stages.run(
        name,
        {"images": hashes, "featurizer": key, "on_error": flow.spec.run.on_error},
        lambda path: extract(
            path, featurizer, key, flow.items, hashes, flow.cache, flow.spec.run.on_error
        ),
        given=len(flow.items),
        unit="images",
    )
    _noted(flow, stage)
    for user in (*flow.spec.rerank, *flow.spec.output):
        if "local featurizer" in user.needs and "keypoints" not in stage.open().arrays():
            raise DataError(
                f"{user.name} compares pictures by keypoints, and {featurizer.name} gives none; "
                "take a local featurizer that does, such as sift"
            )
    return stage


def _noted(flow: Flow, stage: Stage) -> None:
    """Note what became of the items."""
    flow.items = noted(flow.items, stage.open())
    note_skipped(flow.stages.job.within(stage.name), flow.items)
    if not flow.kept():
        raise DataError(
            f"images: none of {len(flow.items)} could be used; the first: {flow.items[0].reason}"
        )


def fit_and_save(backend: Any, data: Any, path: Path, *, fit: bool = True) -> None:
    """Write what was fitted, fitting it first if that is wanted."""
    if fit and not backend._fitted:
        backend.fit(data)
    backend.save(path)
