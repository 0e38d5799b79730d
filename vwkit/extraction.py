"""Features of all images, each image once: those seen before come from the cache."""

from __future__ import annotations

import os
import platform
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import Artifact, write_artifact
from vwkit.cache import Cache
from vwkit.errors import ImageError, RunError
from vwkit.featurizer import Featurizer
from vwkit.growing_arrays import GrowingArrays
from vwkit.hashing import content_key
from vwkit.jobs import job
from vwkit.sparse import Sparse
from vwkit.stage_arrays import append_sparse, finish_sparse
from vwkit.stream import row_spans
from vwkit.types import Array, Features, Item, Skipped

__all__ = ["batch_features", "extract", "image_key", "noted"]

_IMAGES_AT_ONCE = 64
_UNREADABLE = "unreadable: "
_IMAGES_OF_A_TASK = 8  # where they are looked at elsewhere


def image_key(item: Item, cache: Cache) -> str:
    """Return the hash of an image file, or a key that says why it cannot be read."""
    if item.status != "ok":
        return f"skipped-{content_key(item.reason)}"
    try:
        return cache.file_key(Path(str(item.path)))
    except OSError as error:
        return f"{_UNREADABLE}{error.strerror}"


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
    with (
        write_artifact(path, {"role": "stage", "name": "features"}) as draft,
        GrowingArrays(draft, current) as growing,
    ):
        done = growing.position
        growing.array("sizes", 2, np.int64, len(items))
        growing.array("offsets", None, np.int64)
        if done == 0:
            growing.append("offsets", np.zeros(1, np.int64))
        total = growing.rows("vectors") + max(0, growing.rows("indptr") - 1)
        step = _IMAGES_OF_A_TASK if current.distributed else _IMAGES_AT_ONCE
        left = [(done + i, done + j) for i, j in row_spans(len(items) - done, step)]
        parts = [(items[start:stop], hashes[start:stop]) for start, stop in left]
        batches = _batches(featurizer, key, parts, cache)
        for (start, stop), batch in zip(left, batches, strict=True):
            sizes = np.zeros((stop - start, 2), np.int64)
            skipped: list[list[Any]] = []
            for row, found in enumerate(batch, start):
                if isinstance(found, Skipped):
                    if on_error == "stop":
                        raise ImageError(found.reason)
                    # Without the path: the stage may be found again from another folder.
                    skipped.append([row, found.reason.removeprefix(f"{items[row].path}: ")])
                    continue
                if found.size is not None:
                    sizes[row - start] = found.size
                total += len(found.vectors)
                growing.append("offsets", np.array([total], np.int64))
                if isinstance(found.vectors, Sparse):
                    append_sparse(growing, found.vectors)
                    continue
                if "vectors" not in growing:
                    growing.array("vectors", featurizer.dim, found.vectors.dtype)
                growing.append("vectors", found.vectors)
                if found.keypoints is not None:
                    if "keypoints" not in growing:
                        growing.array("keypoints", 5, np.float32)
                    growing.append("keypoints", found.keypoints)
            growing.append("sizes", sizes)
            growing.step(stop, skipped or None)
            current.progress(stop, len(items), "images", descriptors=float(total))
        growing.close()
        if "indptr" in growing:
            finish_sparse(draft, growing, featurizer.dim)
        draft.manifest["skipped"] = [one for some in growing.notes for one in some]


def _batches(
    featurizer: Featurizer, key: str, parts: list[tuple[list[Item], list[str]]], cache: Cache
) -> Iterator[Iterable[Features | Skipped]]:
    """Yield the features of the items of each part; they may be computed elsewhere."""
    current = job()
    if not current.distributed:
        for items, hashes in parts:
            yield batch_features(featurizer, key, items, hashes, cache)
        return
    asked: deque[_Asked] = deque()

    def tasks() -> Iterator[tuple[list[str], list[bool]]]:
        for items, hashes in parts:
            asked.append(_Asked.of(key, items, hashes, cache))
            todo = asked[-1].todo
            here = [not name.startswith(_UNREADABLE) for name in todo]
            yield [str(item.path) for item in todo.values()], here

    for found in current.each(_features_elsewhere, tasks(), {"featurizer": featurizer}):
        yield asked.popleft().told(found, key, cache)


def _features_elsewhere(
    paths: list[str], here: list[bool], *, featurizer: Featurizer
) -> list[Features | Skipped]:
    for path, sure in zip(paths, here, strict=True):
        if sure and not os.path.exists(path):
            raise RunError(
                f"{path}: is there, but not for the worker on {platform.node()}; workers read images "
                "by the same paths, from a file system that all machines share"
            )
    return list(featurizer.features(paths, on_error="skip"))


def batch_features(
    featurizer: Featurizer, key: str, items: list[Item], hashes: list[str], cache: Cache
) -> Iterable[Features | Skipped]:
    """Yield the features of some items, in order; what the cache holds is not computed again."""
    asked = _Asked.of(key, items, hashes, cache)
    paths = [str(item.path) for item in asked.todo.values()]
    found = featurizer.features(paths, on_error="skip") if paths else iter(())
    return asked.told(found, key, cache)


@dataclass
class _Asked:
    """Some items, what is known of them, and those that are to be looked at: one of each content."""

    items: list[Item]
    hashes: list[str]
    known: dict[str, Features | Skipped | None]
    todo: dict[str, Item]

    @classmethod
    def of(cls, key: str, items: list[Item], hashes: list[str], cache: Cache) -> _Asked:
        """Look into the cache."""
        known: dict[str, Features | Skipped | None] = {
            name: _from_cache(cache.features(key, name)) for name in dict.fromkeys(hashes)
        }
        todo: dict[str, Item] = {}
        for item, name in zip(items, hashes, strict=True):
            if item.status != "ok":  # its source could not give the picture
                known[name] = Skipped(item.reason or item.status)
            if known[name] is None:
                todo.setdefault(name, item)
        return cls(items, hashes, known, todo)

    def told(
        self, found: Iterable[Features | Skipped], key: str, cache: Cache
    ) -> Iterator[Features | Skipped]:
        """Keep what was found in the cache, and yield what there is of each item, in order.

        Nothing is held that is not asked for again: features of large pictures may be large.
        """
        fresh = zip(self.todo, found, strict=True)
        left = Counter(self.hashes)
        for item, name in zip(self.items, self.hashes, strict=True):
            if self.known[name] is None and name in self.todo:
                found_name, one = next(fresh)  # in the order of the items
                self.known[found_name] = one
                if isinstance(one, Features) and not isinstance(one.vectors, Sparse):
                    arrays = {"vectors": one.vectors, "size": np.array(one.size or (0, 0))}
                    if one.keypoints is not None:
                        arrays["keypoints"] = one.keypoints
                    cache.keep_features(key, found_name, arrays)
                del one
            left[name] -= 1
            result = self.known[name] if left[name] else self.known.pop(name)
            if isinstance(result, Skipped):
                # Two files of the same bytes: each is told by its own name.
                first = self.todo.get(name, item)
                yield Skipped(result.reason.replace(str(first.path), str(item.path)))
            elif result is not None:
                yield result
        next(fresh, None)  # lets go of the threads


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
