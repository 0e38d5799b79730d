"""Features of all images, each image once: those seen before come from the cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import Artifact, write_artifact
from vwkit.cache import Cache
from vwkit.errors import ImageError
from vwkit.featurizer import Featurizer
from vwkit.hashing import content_key
from vwkit.jobs import job
from vwkit.sparse import Sparse
from vwkit.stream import row_spans
from vwkit.types import Array, Features, Item, Skipped

__all__ = ["batch_features", "extract", "image_key", "noted"]

_IMAGES_AT_ONCE = 64


def image_key(item: Item, cache: Cache) -> str:
    """Return the hash of an image file, or a key that says why it cannot be read."""
    if item.status != "ok":
        return f"skipped-{content_key(item.reason)}"
    try:
        return cache.file_key(Path(str(item.path)))
    except OSError as error:
        return f"unreadable: {error.strerror}"


def extract(
    path: Path,
    featurizer: Featurizer,
    key: str,
    items: list[Item],
    hashes: list[str],
    cache: Cache,
    on_error: str,
) -> None:
    """Write the features of all images, in order; those seen before come from the cache."""
    current = job()
    sizes = np.zeros((len(items), 2), np.int64)
    skipped: list[list[Any]] = []
    counts: list[int] = []
    sparse: list[Sparse] = []
    with write_artifact(path, {"role": "stage", "name": "features"}) as draft:
        vectors = points = None
        for start, stop in row_spans(len(items), _IMAGES_AT_ONCE):
            batch = batch_features(featurizer, key, items[start:stop], hashes[start:stop], cache)
            for row, found in enumerate(batch, start):
                if isinstance(found, Skipped):
                    if on_error == "stop":
                        raise ImageError(found.reason)
                    # Without the path: the stage may be found again from another folder.
                    skipped.append([row, found.reason.removeprefix(f"{items[row].path}: ")])
                    continue
                if found.size is not None:
                    sizes[row] = found.size
                counts.append(len(found.vectors))
                if isinstance(found.vectors, Sparse):
                    sparse.append(found.vectors)
                    continue
                if vectors is None:
                    vectors = draft.growing("vectors", featurizer.dim, found.vectors.dtype)
                vectors.append(found.vectors)
                if found.keypoints is not None:
                    points = points or draft.growing("keypoints", 5, np.float32)
                    points.append(found.keypoints)
            current.progress(stop, len(items), "images", descriptors=float(sum(counts)))
        for growing in (vectors, points):
            if growing is not None:
                growing.close()
        if sparse:
            bags = Sparse.stack(sparse, featurizer.dim)
            for name in ("indptr", "indices", "data"):
                draft.array(name, getattr(bags, name))
            draft.array("shape", np.array(bags.shape, np.int64))
        draft.array("offsets", np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
        draft.array("sizes", sizes)
        draft.manifest["skipped"] = skipped


def batch_features(
    featurizer: Featurizer, key: str, items: list[Item], hashes: list[str], cache: Cache
) -> Iterable[Features | Skipped]:
    """Yield the features of some items, in order; what the cache holds is not computed again."""
    known: dict[str, Features | Skipped | None] = {
        name: _from_cache(cache.features(key, name)) for name in dict.fromkeys(hashes)
    }
    todo: dict[str, Item] = {}
    for item, name in zip(items, hashes, strict=True):
        if item.status != "ok":  # its source could not give the picture
            known[name] = Skipped(item.reason or item.status)
        if known[name] is None:
            todo.setdefault(name, item)
    paths = [str(item.path) for item in todo.values()]
    found = featurizer.features(paths, on_error="skip") if paths else iter(())
    for name, one in zip(todo, found, strict=True):
        known[name] = one
        if isinstance(one, Features) and not isinstance(one.vectors, Sparse):
            arrays = {"vectors": one.vectors, "size": np.array(one.size or (0, 0))}
            if one.keypoints is not None:
                arrays["keypoints"] = one.keypoints
            cache.keep_features(key, name, arrays)
    for item, name in zip(items, hashes, strict=True):
        result = known[name]
        if isinstance(result, Skipped):
            # Two files of the same bytes: each is told by its own name.
            first = todo.get(name, item)
            yield Skipped(result.reason.replace(str(first.path), str(item.path)))
        elif result is not None:
            yield result


def _from_cache(arrays: dict[str, Array] | None) -> Features | Skipped | None:
    if arrays is None or "vectors" not in arrays or "size" not in arrays:
        return None
    size = (int(arrays["size"][0]), int(arrays["size"][1]))
    return Features(arrays["vectors"], arrays.get("keypoints"), size)


def noted(items: list[Item], stage: Artifact) -> list[Item]:
    """Write down what became of each item."""
    reasons = {int(row): str(reason) for row, reason in stage.manifest.get("skipped", [])}
    sizes = stage.arrays()["sizes"]
    noted = []
    for item in items:
        if item.row in reasons:
            noted.append(replace(item, status="skipped", reason=reasons[item.row]))
        else:
            width, height = sizes[item.row]
            noted.append(replace(item, size=(int(width), int(height)) if width else None))
    return noted
