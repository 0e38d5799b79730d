"""Pictures: their list, and the features of each."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vwkit.artifact import MANIFEST
from vwkit.builtin.aggregated import Aggregated
from vwkit.collecting import collect
from vwkit.errors import VwkitError
from vwkit.extraction import image_key
from vwkit.hashing import content_key, derive_seed, rows_key, sample_rows
from vwkit.items import find_images
from vwkit.metadata import read_metadata
from vwkit.planning.colours import plan_colours
from vwkit.planning.data import Flowing
from vwkit.planning.files import stamp
from vwkit.planning.hits import Hit
from vwkit.planning.meters import Clock, Memory
from vwkit.planning.spent import NOTHING, Spent
from vwkit.planning.stage import PlannedStage
from vwkit.planning.words import plan_words
from vwkit.sparse import Sparse
from vwkit.spec import ImagesSource, UrlsSource
from vwkit.types import Features, Item

if TYPE_CHECKING:
    from vwkit.planning.walk import Walk

__all__ = ["Pictures"]

_LOOKED_AT = 16  # pictures, for a trial
_KEPT = Spent(0.0006)  # to write the small file of one picture's features
_FOUND = Spent(0.0004)  # to read it again


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
            plan_words(self, featurizer)
            return
        if featurizer.trainable and not featurizer._fitted:
            stage = PlannedStage("featurizer", featurizer.name, rows=self.count)
            stage.note = "learns from pictures: not tried out"
            walk.plan.stages.append(stage)
        else:
            hit = walk.look("featurizer", walk.signature(featurizer))
            stage = PlannedStage("featurizer", featurizer.name)
            walk.next_to_nothing(stage)
            walk.add(stage, hit)
        if "colours" in walk.expected:
            plan_colours(self, featurizer)
        else:
            self.features("features", featurizer)

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
    def about(self) -> Any:
        """What tells these pictures from others."""
        chosen = self.chosen()
        return [len(self.paths), [[str(path), *stamp(path)] for path in chosen]]

    def chosen(self) -> list[Path]:
        """Return some pictures, drawn at random."""
        rows = sample_rows(len(self.paths), _LOOKED_AT, 0)
        chosen = [self.paths[row] for row in rows]
        order = np.random.default_rng(0).permutation(len(chosen))
        return [chosen[i] for i in order]

    def hashes(self) -> list[str | None]:
        """Return the hash of each picture, as far as it is known."""
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

    def features(self, name: str, featurizer: Any) -> tuple[PlannedStage, Hit]:
        """Features of all pictures; those that are kept already take no time."""
        walk = self.walk
        described = walk.signature(featurizer)
        hashes = self.hashes()
        known = described is not None and bool(hashes) and None not in hashes
        key = None if described is None else content_key(described)
        inputs = {"images": hashes, "featurizer": key, "on_error": self.spec.run.on_error}
        hit = walk.look(name, inputs if known else None)
        stage = PlannedStage(name, featurizer.name)
        told: dict[str, Any] = {}
        if walk.measured is not None and self.paths:
            what = {"features": described or repr(featurizer), "images": self.about}
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
                once = Spent.of(told, "cold") + loading if todo else NOTHING
                found = _FOUND * (stage.hits or 0)
                stage.takes((Spent.of(told, "each") + _KEPT) * todo + found + once)
                stage.memory = walk.plan.base + float(told["grown"])
        walk.add(stage, hit)
        if stage.hits and not hit.found:
            stage.cached = "some"
        walk.key = hit.key
        walk.flow = Flowing(
            rows, dim, dtype, mapped=True, stream=featurizer.local,
            sample=lambda n: self.vectors(featurizer, n), about=[described, self.about],
        )  # fmt: skip
        walk.ids = self.ids(hit) if not featurizer.local else None
        return stage, hit

    def ids(self, hit: Hit) -> Any:
        """Return what tells the rows of the items that stay, as far as is known."""
        skipped: set[int] = set()
        if hit.folder is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
                manifest = json.loads((hit.folder / MANIFEST).read_text(encoding="utf-8"))
                skipped = {int(row) for row, _ in manifest.get("skipped", [])}
        kept = [i.row for i in self.items if i.status == "ok" and i.row not in skipped]
        return rows_key(np.array(kept, np.int64))

    def _probe(self, featurizer: Any, seconds: float) -> dict[str, Any]:
        """Extract the features of some pictures."""
        threads = self.walk.job.threads
        chosen = [str(path) for path in self.chosen()]
        with Memory() as first, Clock() as clock:
            found = list(featurizer.features(chosen[:1], on_error="skip"))
        cold, took = clock.spent, NOTHING
        batch, done, grown = 2 * threads, 0, 0.0
        rest = chosen[1:] or chosen
        while done < len(rest) and (done == 0 or took.clock < seconds):
            here = rest[done : done + batch]
            with Memory() as used, Clock() as clock:
                more = list(featurizer.features(here, on_error="skip"))
            took += clock.spent
            grown, done, batch = max(grown, used.grown), done + len(here), 2 * batch
            found += more if chosen[1:] else []
        good = [one for one in found if isinstance(one, Features)]
        if not good:
            return {"error": "none of some pictures could be used"}
        self._found = good
        vectors = good[0].vectors
        each = took * (1 / done)
        alone = Spent(each.clock * max(1, threads), each.cpu)  # one picture has one thread
        return {
            "each": each.plain(),
            "cold": cold.less(alone).plain(),
            "kept": float(first.kept),
            "grown": float(max(grown, first.grown - first.kept)),
            "rows": sum(one.vectors.shape[0] for one in good) / len(found),
            "dim": int(vectors.shape[1]),
            "dtype": str(getattr(vectors, "dtype", np.dtype(np.float32))),
            "keypoints": good[0].keypoints is not None,
        }

    def vectors(self, featurizer: Any, rows: int) -> Any:
        """Return rows of some pictures' features."""
        if self._found is None:
            chosen = [str(path) for path in self.chosen()]
            found = featurizer.features(chosen, on_error="skip")
            self._found = [one for one in found if isinstance(one, Features)]
        parts = [one.vectors for one in self._found if not isinstance(one.vectors, Sparse)]
        return np.concatenate(parts)[:rows] if parts else None
