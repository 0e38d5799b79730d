"""Pixels as data: equal ones counted once."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from vwkit.artifact import open_artifact
from vwkit.cache import Cache
from vwkit.counted import count_pixels, keeps_pixels
from vwkit.hashing import content_key, sample_rows
from vwkit.planning.data import Flowing
from vwkit.planning.meters import Clock, Memory
from vwkit.planning.spent import Spent
from vwkit.planning.stage import PlannedStage
from vwkit.types import Item

if TYPE_CHECKING:
    from vwkit.planning.pictures import Pictures

__all__ = ["plan_colours"]

_SIZES = 200  # pictures whose size is looked up
_KEPT = Spent(0.0006)  # to write the small file of one picture's colours


def plan_colours(pictures: Pictures, featurizer: Any) -> None:
    """Plan the counting of equal pixels."""
    walk, spec = pictures.walk, pictures.spec
    every = keeps_pixels(spec)
    key = content_key({"colours": featurizer.revision})
    hashes = pictures.hashes()
    known = bool(hashes) and None not in hashes
    inputs = {
        "images": hashes, "colours": key, "every": every, "on_error": spec.run.on_error,
    }  # fmt: skip
    hit = walk.look("colours", inputs if known else None)
    pixels = _pixels(pictures)
    stage = PlannedStage("colours", featurizer.name, rows=pixels, dim=3)
    told: dict[str, Any] = {}
    if walk.measured is not None and pictures.paths:
        what = {"colours": key, "every": every, "images": pictures.about}
        told = walk.measured.of(what, lambda _: _probe_colours(pictures, key, every))
        if "error" in told:
            stage.note, told = f"not tried out: {told['error']}", {}
    shapes = hit.shapes()
    colours = float(shapes["colours"][0][0]) if "colours" in shapes else None
    if told and pixels is not None:
        share = max(1.0, pixels / max(1.0, float(told["pixels"])))
        colours = colours or min(float(1 << 24), pixels, float(told["colours"]) * share**0.7)
        stage.takes(Spent.of(told, "each") * pixels + _KEPT * pictures.count)
        stage.memory = walk.plan.base + float(told["grown"])
        stage.disk = pixels * (8.0 if every else 0.0) + 22.0 * colours
    walk.add(stage, hit)
    walk.key = None if hit.key is None else {"colours": hit.key, "space": featurizer.space}
    clusterer = spec.clusterer
    folded = clusterer is not None and clusterer.supports_weights
    folded = folded and "clusterer" not in spec.trains
    about = ["colours", pictures.about, featurizer.space]
    walk.flow = Flowing(
        colours if folded else pixels, 3, np.dtype(np.float32), held=folded,
        stream=not folded, sample=lambda n: pictures.vectors(featurizer, n), about=about,
    )  # fmt: skip
    walk.spread = hit if folded and every else None


def _pixels(pictures: Pictures) -> float | None:
    """Return how many pixels there are, from the headers of some pictures."""
    sizes = []
    for row in sample_rows(len(pictures.paths), _SIZES, 0):
        with contextlib.suppress(Exception), PIL.Image.open(pictures.paths[row]) as picture:
            sizes.append(picture.width * picture.height)
    return pictures.count * sum(sizes) / len(sizes) if sizes else None


def _probe_colours(pictures: Pictures, key: str, every: bool) -> dict[str, Any]:
    """Count the colours of some pictures."""
    chosen = pictures.chosen()[:4]
    items = [Item(row, path.name, str(path)) for row, path in enumerate(chosen)]
    with tempfile.TemporaryDirectory(prefix="vwkit-plan-") as folder:
        cache = Cache(Path(folder) / "cache")
        hashes = [f"{row:064d}" for row in range(len(items))]
        with Memory() as used, Clock() as clock:
            count_pixels(Path(folder) / "colours", key, items, hashes, cache, "skip", every=every)
        took = clock.spent
        arrays = open_artifact(Path(folder) / "colours").arrays()
        pixels = float(np.asarray(arrays["offsets"])[-1])
        colours = float(len(arrays["colours"])) if "colours" in arrays else 0.0
        arrays.clear()
    return {
        "each": (took * (1 / max(1.0, pixels))).plain(),
        "pixels": pixels,
        "colours": colours,
        "grown": float(used.grown),
    }
