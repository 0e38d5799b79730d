"""Where data come from: descriptor files and pictures, and what becomes of the pictures."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from vwkit.artifact import MANIFEST, open_artifact
from vwkit.builtin.aggregated import Aggregated
from vwkit.cache import Cache, link_tree
from vwkit.collecting import collect
from vwkit.counted import count_pixels, counts_pixels, keeps_pixels
from vwkit.errors import VwkitError
from vwkit.extraction import image_key
from vwkit.formats import oxford
from vwkit.formats.remote import Place, RemotePlace
from vwkit.hashing import content_key, derive_seed, sample_rows
from vwkit.items import find_images
from vwkit.metadata import read_metadata
from vwkit.planning.data import Flowing, sampled
from vwkit.planning.hits import Hit
from vwkit.planning.measuring import Clock, Memory
from vwkit.planning.stage import PlannedStage
from vwkit.planning.trials import Trial, fitted_on, shrunk
from vwkit.remote import file_of, said_key
from vwkit.sparse import Sparse
from vwkit.spec import ImagesSource, UrlsSource, open_source
from vwkit.stages import Stage, opened, used_key
from vwkit.stream import Stream
from vwkit.types import Features, Item

if TYPE_CHECKING:
    from vwkit.planning.walk import Walk

__all__ = ["Pictures", "from_vectors"]

_LOOKED_AT = 16  # pictures, for a trial
_SIZES = 200  # pictures whose size is looked up
_HEAD = 4 << 20
_READ = 16 << 20
_WRITTEN = 4e8  # bytes a second that an artifact is written and hashed with, about
_PER_FILE = 0.0006  # seconds to write one small file


# Descriptor files ------------------------------------------------------------------------------


def from_vectors(walk: Walk) -> None:
    """Look at the header of the descriptor file."""
    spec, source = walk.spec, walk.spec.vectors
    if source is None:
        return
    place = file_of(source.path, fetch=False)
    stream: Stream = open_source(source, place)
    rows = None if stream.rows is None else float(stream.rows)
    # Without trials only what is certain is told.
    if rows is None and walk.measured is not None:
        rows = _inflated(place, stream)
        walk.rows_note = "rows: those of a compressed file, estimated from its beginning"
    about = [str(source.path), _stamp(place), stream.dim, stream.dtype.str]
    read = 0.0
    if walk.measured is not None:
        told = walk.measured.of({"reading": about}, lambda _: {"each": _reading(stream)})
        read = float(told.get("each", 0.0))
    if walk.hits is not None:
        held = said_key(source.path) or walk.hits.file_key(place)
        reader = walk.signature(source.reader) if source.reader else None
        if held is not None:
            walk.key = {
                "file": held,
                "reader": reader,
                "limit": source.limit,
                "sample": [source.sample, spec.seed] if source.sample else None,
            }
    if source.images is not None and source.counts is not None:
        _with_items(walk, source.images, source.counts)
    mapped, in_memory = stream.array is not None, False
    for fewer in (source.sample, source.limit):
        rows = rows if fewer is None or rows is None else min(rows, float(fewer))
    if source.sample is not None:
        mapped, in_memory, read = False, True, 0.0
    walk.flow = Flowing(
        rows, stream.dim, stream.dtype, mapped=mapped, held=in_memory, stream=True, read=read,
        sample=lambda n: sampled(stream, n), about=about,
    )  # fmt: skip


def _stamp(path: Place) -> list[Any]:
    if isinstance(path, RemotePlace):
        return [path.size, path.mark]
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _inflated(path: Place, stream: Stream) -> float | None:
    """Tell the rows of a compressed file by how well its beginning is compressed."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        wide = len(zlib.decompressobj(wbits=31).decompress(head))
    except (OSError, zlib.error):
        return None
    record = stream.dim * stream.dtype.itemsize + 4
    size = path.size if isinstance(path, RemotePlace) else path.stat().st_size
    return max(1.0, wide / max(1, len(head)) * size / record)


def _reading(stream: Stream) -> float:
    """Return the seconds to read one row."""
    rows, start = 0, time.perf_counter()
    for chunk in stream.chunks():
        rows += len(chunk)
        np.asarray(chunk).max(initial=0)  # what is mapped is read only when it is looked at
        if rows * stream.dim * stream.dtype.itemsize > _READ:
            break
    return (time.perf_counter() - start) / max(1, rows)


def _with_items(walk: Walk, images: Path, counts: Path) -> None:
    """The offsets of the items are a stage."""
    hit, items = Hit(), None
    with contextlib.suppress(VwkitError, OSError):
        names = oxford.read_image_list(images)
        items = len(names)
        if walk.hits is not None:
            numbers = oxford.read_counts(counts, names)
            offsets = oxford.offsets_from_counts(numbers)
            hit = walk.look("source", {"offsets": offsets.tolist()})
    stage = PlannedStage("source", rows=items)
    if walk.measured is not None:
        stage.seconds, stage.memory = 0.005, walk.plan.base
    stage.disk = 8.0 * ((items or 0) + 1)
    walk.add(stage, hit)


# Pictures --------------------------------------------------------------------------------------


class Pictures:
    """Pictures on their way to vectors.

    Parameters
    ----------
    walk : Walk
    source : ImagesSource or UrlsSource
    """

    def __init__(self, walk: Walk, source: ImagesSource | UrlsSource) -> None:
        self.walk, self.source, self.spec = walk, source, walk.spec
        self.items: list[Item] = []
        self.paths: list[Path] = []
        self.count = 0.0
        self._found: list[Any] | None = None

    def run(self) -> None:
        """From the list of pictures to what comes before the first transform."""
        walk, featurizer = self.walk, self.spec.featurizer
        self._list()
        if featurizer is None:
            return
        if isinstance(featurizer, Aggregated):
            self._aggregated(featurizer)
            return
        if featurizer.trainable and not featurizer._fitted:
            stage = PlannedStage("featurizer", featurizer.name, rows=self.count)
            stage.note = "learns from pictures: not tried out"
            walk.plan.stages.append(stage)
        else:
            hit = walk.look("featurizer", walk.signature(featurizer))
            stage = PlannedStage("featurizer", featurizer.name)
            if walk.measured is not None:
                stage.seconds, stage.memory, stage.disk = 0.005, walk.plan.base, 1000.0
            walk.add(stage, hit)
        if counts_pixels(self.spec):
            self._colours(featurizer)
        else:
            self._features("features", featurizer)

    def _list(self) -> None:
        source = self.source
        if isinstance(source, UrlsSource):
            count = 0
            for count, _ in enumerate(read_metadata(source.urls, [source.url_field]), 1):
                if source.sample is None and count == source.limit:
                    break
            for fewer in (source.sample, source.limit):
                count = count if fewer is None else min(count, fewer)
            self.count = float(count)
            with contextlib.suppress(VwkitError, OSError):
                found = find_images(source.cache, None)
                self.paths = [Path(str(item.path)) for item in found]
            stage = PlannedStage("images", rows=self.count, cached="unknown")
            stage.note = "pictures are fetched when it runs"
            self.walk.plan.stages.append(stage)
            return
        own = {str(output.path.absolute()) for output in self.spec.output}
        seed = derive_seed(self.spec.seed, "images")
        self.items = collect(source, seed, self.spec.run.on_error, without=own).items
        kept = [item for item in self.items if item.status == "ok"]
        self.paths = [Path(str(item.path)) for item in kept]
        self.count = float(len(kept))

    @property
    def _about(self) -> Any:
        chosen = self._chosen()
        return [len(self.paths), [[str(path), *_stamp(path)] for path in chosen]]

    def _chosen(self) -> list[Path]:
        """Return some pictures, drawn at random."""
        rows = sample_rows(len(self.paths), _LOOKED_AT, 0)
        chosen = [self.paths[row] for row in rows]
        order = np.random.default_rng(0).permutation(len(chosen))
        return [chosen[i] for i in order]

    def _hashes(self) -> list[str | None]:
        hits = self.walk.hits
        if hits is None:
            return []
        return [
            image_key(item, hits.cache)
            if item.status != "ok"
            else hits.file_key(Path(str(item.path)))
            for item in self.items
        ]

    # Features

    def _features(self, name: str, featurizer: Any) -> tuple[PlannedStage, Hit]:
        """Features of all pictures; those that are kept already take no time."""
        walk = self.walk
        described = walk.signature(featurizer)
        hashes = self._hashes()
        known = described is not None and bool(hashes) and None not in hashes
        key = None if described is None else content_key(described)
        inputs = {"images": hashes, "featurizer": key, "on_error": self.spec.run.on_error}
        hit = walk.look(name, inputs if known else None)
        stage = PlannedStage(name, featurizer.name)
        told: dict[str, Any] = {}
        if walk.measured is not None and self.paths:
            what = {"features": described or repr(featurizer), "images": self._about}
            told = walk.measured.of(what, lambda seconds: self._probe(featurizer, seconds))
            if "error" in told:
                stage.note = f"not tried out: {told['error']}"
                told = {}
        elif walk.measured is not None:
            stage.note = "no picture there to try it out on"
        loading = walk.grow(featurizer, float(told.get("kept", 0.0)))
        each = float(told["rows"]) if told else (None if featurizer.local else 1.0)
        dim = told.get("dim")
        if dim is None and (walk.measured is not None or not featurizer.requires):
            with contextlib.suppress(Exception):  # a network that is not there, say
                dim = featurizer.dim
        dtype = np.dtype(told.get("dtype", featurizer.dtype))
        rows = None if each is None else each * self.count
        shapes = hit.shapes()
        if "vectors" in shapes:
            (held, dim), dtype = shapes["vectors"]
            rows = float(held)
        stage.rows, stage.dim = rows, dim
        if rows is not None and dim is not None:
            points = 20.0 if told.get("keypoints") else 0.0
            row_bytes = dim * dtype.itemsize + points
            stage.disk = 2 * rows * row_bytes  # for each picture, and all together
            if told:
                there = [] if key is None else walk.hits.features(key, hashes) if walk.hits else []
                if there:
                    stage.hits, stage.of = sum(there), len(there)
                todo = self.count - (stage.hits or 0)
                stage.seconds = (
                    todo * (float(told["seconds"]) + _PER_FILE)
                    + rows * row_bytes / _WRITTEN
                    + (stage.hits or 0) * 0.0004
                    + (float(told["cold"]) + loading if todo else 0.0)
                )
                stage.memory = walk.plan.base + float(told["grown"])
        walk.add(stage, hit)
        if stage.hits and not hit.found:
            stage.cached = "some"
        walk.key = hit.key
        walk.flow = Flowing(
            rows, dim, dtype, mapped=True, stream=featurizer.local,
            sample=lambda n: self._vectors(featurizer, n), about=[described, self._about],
        )  # fmt: skip
        walk.ids = self._ids(hit) if not featurizer.local else None
        return stage, hit

    def _ids(self, hit: Hit) -> Any:
        """Return the rows of the items that stay, as far as is known."""
        skipped: set[int] = set()
        if hit.folder is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
                manifest = json.loads((hit.folder / MANIFEST).read_text(encoding="utf-8"))
                skipped = {int(row) for row, _ in manifest.get("skipped", [])}
        return [i.row for i in self.items if i.status == "ok" and i.row not in skipped]

    def _probe(self, featurizer: Any, seconds: float) -> dict[str, Any]:
        """Extract the features of some pictures."""
        chosen = [str(path) for path in self._chosen()]
        with Memory() as first, Clock() as clock:
            found = list(featurizer.features(chosen[:1], on_error="skip"))
        cold = clock.seconds
        batch, done, took, grown = 2 * self.walk.job.threads, 0, 0.0, 0
        rest = chosen[1:] or chosen
        while done < len(rest) and (done == 0 or took < seconds):
            here = rest[done : done + batch]
            with Memory() as used, Clock() as clock:
                more = list(featurizer.features(here, on_error="skip"))
            took += clock.seconds
            grown, done, batch = max(grown, used.grown), done + len(here), 2 * batch
            found += more if chosen[1:] else []
        good = [one for one in found if isinstance(one, Features)]
        if not good:
            return {"error": "none of some pictures could be used"}
        self._found = good
        vectors = good[0].vectors
        each = took / done
        return {
            "seconds": each,
            "cold": max(0.0, cold - each * max(1, self.walk.job.threads)),
            "kept": float(first.kept),
            "grown": float(max(grown, first.grown - first.kept)),
            "rows": sum(one.vectors.shape[0] for one in good) / len(found),
            "dim": int(vectors.shape[1]),
            "dtype": str(getattr(vectors, "dtype", np.dtype(np.float32))),
            "keypoints": good[0].keypoints is not None,
        }

    def _vectors(self, featurizer: Any, rows: int) -> Any:
        """Return rows of some pictures' features."""
        if self._found is None:
            chosen = [str(path) for path in self._chosen()]
            found = featurizer.features(chosen, on_error="skip")
            self._found = [one for one in found if isinstance(one, Features)]
        parts = [one.vectors for one in self._found if not isinstance(one.vectors, Sparse)]
        return np.concatenate(parts)[:rows] if parts else None

    # Words

    def _aggregated(self, featurizer: Any) -> None:
        walk, local, model = self.walk, featurizer.local_, featurizer.vocabulary
        _, said = self._features("featurizer.local", local)
        flow, ids = walk.flow, self._ids(said)
        name = "featurizer.vocabulary"
        trial, made, fitted = Trial({}), None, model if model._fitted else None
        if model._fitted:
            made = walk.signature(model, late=True)
            trial = walk.trial(model, flow, fits=False, applied=True)
        else:
            data, key = walk.training(name, flow, said.key)
            described = walk.signature(model)
            known = key is not None and described is not None
            hit = walk.look(name, {"data": key, "vocabulary": described} if known else None)
            stage = PlannedStage(name, model.name, rows=data.rows, dim=data.dim)
            trial = walk.trial(model, data, applied=True)
            walk.fill(stage, model, data, trial)
            walk.add(stage, hit)
            if hit.key is not None:
                made = used_key(Stage(name, hit.key, Path()), model)
            if hit.folder is not None:
                fitted = _opened(hit, model)
        known = made is not None and said.key is not None
        words = walk.look(
            "featurizer.words", {"data": said.key, "vocabulary": made} if known else None
        )
        walk.add(walk.applying("featurizer.words", model, flow, trial, 4, 1), words)
        k = float(featurizer.word_count)
        told: dict[str, Any] = {}
        if walk.measured is not None and flow.rows and flow.dim:
            what = {
                "aggregated": walk.signature(featurizer) or repr(featurizer),
                "data": flow.about,
                "each": round(flow.rows / max(1.0, self.count)),
            }
            told = walk.measured.of(what, lambda _: self._probe_words(featurizer, flow))
        whole = None
        if fitted is not None and walk.hits is not None:
            kept, featurizer.vocabulary = featurizer.vocabulary, fitted
            try:
                whole = walk.signature(featurizer)
            finally:
                featurizer.vocabulary = kept
        known = whole is not None and words.key is not None
        learned = walk.look(
            "featurizer", {"words": words.key, "featurizer": whole} if known else None
        )
        rows = flow.rows or 0.0
        stage = PlannedStage("featurizer", featurizer.name, rows=self.count)
        if "learn" in told:
            stage.seconds = rows * float(told["learn"]) + 0.01
            stage.memory = walk.plan.base + 16.0 * rows
            stage.disk = 4 * k * (flow.dim or 1) + 4.0 * rows
        walk.add(stage, learned)
        last = None
        if known and learned.key is not None:
            used = used_key(Stage("featurizer", learned.key, Path()), featurizer)
            last = {"words": words.key, "featurizer": used}
        vectors = walk.look("vectors", last)
        stage = PlannedStage("vectors", featurizer.name, rows=self.count)
        dim, dense, entries = self._form(featurizer, told, k, flow)
        stage.dim = dim
        if "each" in told and dim is not None:
            row_bytes = 4.0 * dim if dense else 8.0 * entries
            scale = float(told["k"]) and (k / float(told["k"]) if dense else 1.0)
            stage.seconds = rows * float(told["each"]) + self.count * row_bytes * scale / 2e9
            stage.disk = self.count * row_bytes
            stage.memory = walk.plan.base + 2e8 * min(1.0, self.count / 256 * row_bytes / 1e6)
        walk.add(stage, vectors)
        walk.key, walk.ids = vectors.key, ids
        walk.flow = Flowing(
            self.count, dim, np.dtype(np.float32), mapped=dense,
            sparse=None if dense else entries,
            about=[walk.signature(featurizer) or repr(featurizer), self._about],
        )  # fmt: skip

    def _form(
        self, featurizer: Any, told: dict[str, Any], k: float, flow: Flowing
    ) -> tuple[int | None, bool, float]:
        """Return the dimensions of a picture's vector, whether it is dense, and its entries."""
        each = (flow.rows or 0.0) / max(1.0, self.count)
        if "dim" in told:
            dim = round(float(told["dim"]) * k / max(1.0, float(told["k"])))
            return dim, bool(told["dense"]), min(k, each * 0.8)
        dense = bool(featurizer.needs_vectors)
        return (round(k) if not dense else None), dense, min(k, each * 0.8)

    def _probe_words(self, featurizer: Any, flow: Flowing) -> dict[str, Any]:
        """Aggregate the words of some descriptors."""
        pictures = 8
        each = max(1, round((flow.rows or 1.0) / max(1.0, self.count)))
        rows = flow.some(min(pictures * each, 20_000))
        model = featurizer.vocabulary
        if not model._fitted:
            model = shrunk(model, len(rows), flow.rows or 1.0, 2)
            fitted_on(model, rows)
        params = {
            name: getattr(featurizer, one.attribute)
            for name, one in type(featurizer).parameters().items()
        }
        tried = type(featurizer)(**{**params, "vocabulary": model})
        words = np.asarray(tried.words.encode(rows))[:, 0]
        offsets = np.linspace(0, len(words), pictures + 1).astype(np.int64)
        with Clock() as learning:
            tried.learn(words, offsets)
        with Clock() as making:
            out = list(tried.aggregate(words, offsets, rows))
        return {
            "learn": learning.seconds / len(words),
            "each": making.seconds / len(words),
            "dim": int(tried.dim),
            "dense": not isinstance(out[0], Sparse),
            "k": float(tried.word_count),
        }

    # Colours

    def _colours(self, featurizer: Any) -> None:
        walk, spec = self.walk, self.spec
        every = keeps_pixels(spec)
        key = content_key({"colours": featurizer.revision})
        hashes = self._hashes()
        known = bool(hashes) and None not in hashes
        inputs = {
            "images": hashes, "colours": key, "every": every, "on_error": spec.run.on_error,
        }  # fmt: skip
        hit = walk.look("colours", inputs if known else None)
        pixels = self._pixels()
        stage = PlannedStage("colours", featurizer.name, rows=pixels, dim=3)
        told: dict[str, Any] = {}
        if walk.measured is not None and self.paths:
            what = {"colours": key, "every": every, "images": self._about}
            told = walk.measured.of(what, lambda _: self._probe_colours(key, every))
            if "error" in told:
                stage.note, told = f"not tried out: {told['error']}", {}
        shapes = hit.shapes()
        colours = float(shapes["colours"][0][0]) if "colours" in shapes else None
        if told and pixels is not None:
            share = max(1.0, pixels / max(1.0, float(told["pixels"])))
            colours = colours or min(float(1 << 24), pixels, float(told["colours"]) * share**0.7)
            stage.seconds = pixels * float(told["each"]) + self.count * _PER_FILE
            stage.memory = walk.plan.base + float(told["grown"])
            stage.disk = pixels * (8.0 if every else 0.0) + 22.0 * colours
        walk.add(stage, hit)
        walk.key = None if hit.key is None else {"colours": hit.key, "space": featurizer.space}
        clusterer = spec.clusterer
        folded = clusterer is not None and clusterer.supports_weights
        folded = folded and "clusterer" not in spec.trains
        about = ["colours", self._about, featurizer.space]
        walk.flow = Flowing(
            colours if folded else pixels, 3, np.dtype(np.float32), held=folded,
            stream=not folded, sample=lambda n: self._vectors(featurizer, n), about=about,
        )  # fmt: skip
        walk.spread = hit if folded and every else None

    def _pixels(self) -> float | None:
        """Return how many pixels there are, from the headers of some pictures."""
        sizes = []
        for row in sample_rows(len(self.paths), _SIZES, 0):
            with contextlib.suppress(Exception), PIL.Image.open(self.paths[row]) as picture:
                sizes.append(picture.width * picture.height)
        return self.count * sum(sizes) / len(sizes) if sizes else None

    def _probe_colours(self, key: str, every: bool) -> dict[str, Any]:
        """Count the colours of some pictures."""
        chosen = self._chosen()[:4]
        items = [Item(row, path.name, str(path)) for row, path in enumerate(chosen)]
        with tempfile.TemporaryDirectory(prefix="vwkit-plan-") as folder:
            cache = Cache(Path(folder) / "cache")
            hashes = [f"{row:064d}" for row in range(len(items))]
            with Memory() as used, Clock() as clock:
                count_pixels(
                    Path(folder) / "colours", key, items, hashes, cache, "skip", every=every
                )
            took = clock.seconds
            arrays = open_artifact(Path(folder) / "colours").arrays()
            pixels = float(np.asarray(arrays["offsets"])[-1])
            colours = float(len(arrays["colours"])) if "colours" in arrays else 0.0
            arrays.clear()
        return {
            "each": took / max(1.0, pixels),
            "pixels": pixels,
            "colours": colours,
            "grown": float(used.grown),
        }


def _opened(hit: Hit, backend: Any) -> Any:
    """Load what a stage made as a run would: a copy of it gets the late parameters."""
    if hit.folder is None:
        return None
    with tempfile.TemporaryDirectory(prefix="vwkit-plan-") as folder:
        target = Path(folder) / "stage"
        try:
            link_tree(hit.folder, target)
            return opened(Stage("", hit.key or "", target), backend)
        except (OSError, VwkitError):
            return None
