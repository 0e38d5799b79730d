"""Items added to a finished run, and removed from it, without building it again.

What changes (features, words, vectors, the index, ``items.jsonl``, the manifest) is written beside the run and
put in its place by the run folder's own journal: a kill at any moment leaves the old run or the new one.
Rows are never renumbered; a removed row stays in ``items.jsonl`` as ``removed`` and never comes back. What was
fitted (vocabulary, idf, transforms) stays as it was fitted.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vwkit.asked import listed, named, refuse_unknown, unusable, without_existing
from vwkit.changing import changing
from vwkit.errors import DataError, SkippedItems, UnsupportedError
from vwkit.jobs import job
from vwkit.observing.observer import part
from vwkit.stage_arrays import one_per_item
from vwkit.types import Item

__all__ = ["add_items", "remove_items"]

_log = logging.getLogger("vwkit")

# More than one in so many vectors of an index being dead is worth a word.
_TOO_MANY = 3


def add_items(
    run: Any,
    images: Any,
    *,
    ids: Sequence[str] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    existing: str = "refuse",
    on_error: str = "skip",
) -> list[Item]:
    """Add pictures to a run; see `vwkit.Run.add`."""
    if existing not in ("refuse", "skip"):
        raise UnsupportedError(f"existing must be refuse or skip; got {existing!r}")
    if on_error not in ("skip", "stop"):
        raise UnsupportedError(f"on_error must be skip or stop; got {on_error!r}")
    with changing(run, "add", "supports_add") as change:
        items = named(listed(run, images, on_error), ids, metadata)
        items = without_existing(run, items, existing)
        if not items:
            return []
        change.begin()
        first = len(run.items)
        items = [replace(item, row=first + i) for i, item in enumerate(items)]
        items = change.extract(items, on_error)
        kept = [item for item in items if item.status == "ok"]
        if not kept and existing == "skip" and {item.id for item in items} <= unusable(run):
            return []
        if not kept:
            raise DataError(
                f"none of {len(items)} could be used, so nothing was added; the first: "
                f"{items[0].id}: {items[0].reason}"
            )
        rows = np.array([item.row for item in kept], np.int64)
        with part(job(), "index"):
            vectors = run.indexable(one_per_item(change.added[change.last].arrays()))
            change.index(lambda index: index.add(vectors, rows))
            change.stages(None)
        change.commit([*run.items, *items], {"added": len(kept)})
    skipped = len(items) - len(kept)
    if skipped:
        said = next(item for item in items if item.status != "ok")
        warnings.warn(
            f"{skipped} of {len(items)} were skipped; the first: {said.id}: {said.reason}",
            SkippedItems,
            stacklevel=3,
        )
    return items


def remove_items(run: Any, ids: Any) -> list[Item]:
    """Remove items from a run; see `vwkit.Run.remove`."""
    if isinstance(ids, bytes) or not isinstance(ids, (str, Iterable)):
        raise UnsupportedError(f"ids of items: text or a list of them; got a {type(ids).__name__}")
    wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else [str(one) for one in ids]))
    with changing(run, "remove", "supports_remove") as change:
        living = {item.id: item for item in run.kept}
        refuse_unknown(run, [name for name in wanted if name not in living])
        if not wanted:
            return []
        gone = {living[name].row for name in wanted}
        if len(gone) == len(living):
            raise DataError(
                f"{run.folder}: these are all items of the run; an index cannot be empty. "
                "Remove the folder instead"
            )
        change.begin()
        keep = np.array([item.row not in gone for item in run.kept])
        with part(job(), "index"):
            change.index(lambda index: index.remove(np.array(sorted(gone), np.int64)))
            change.stages(keep)
        items = [
            replace(item, status="removed") if item.row in gone else item for item in run.items
        ]
        change.commit(items, {"removed": len(gone)})
        if change.dead * _TOO_MANY > change.dead + len(living) - len(gone):
            _log.warning(
                "%s: %d removed items still take room in the index, which holds %d others; "
                "`vwkit compact` (run.compact()) lets go of them",
                run.folder,
                change.dead,
                len(living) - len(gone),
            )
    return [items[row] for row in sorted(gone)]
