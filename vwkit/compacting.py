"""A run without what was removed from it: its index made smaller, and stale files cleared away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwkit.changing import Change, changing
from vwkit.jobs import job
from vwkit.observing.observer import part
from vwkit.run_search import fitting_vectors
from vwkit.sparse import Sparse
from vwkit.stream import Stream

__all__ = ["Compacted", "compact_run", "folder_bytes"]


@dataclass(frozen=True)
class Compacted:
    """What compacting a run did.

    Attributes
    ----------
    dead : int
        Removed vectors that the index held before, and holds no more.
    before, after : int
        Bytes of the run folder's files.
    """

    dead: int
    before: int
    after: int


def compact_run(run: Any) -> Compacted:
    """Let go of what was removed from a run; see `vwkit.Run.compact`."""
    folder = Path(run.folder)
    before = folder_bytes(folder)
    with changing(run, "compact", None) as change:
        dead = run.index.dead
        if dead:
            change.begin()
            with part(job(), "index"):
                change.index(lambda index: _compacted(run, change, index))
            change.commit(run.items, {"compacted": dead})
    return Compacted(dead, before, folder_bytes(folder))


def _compacted(run: Any, change: Change, index: Any) -> None:
    if index.supports_compact:
        index.compact()
        return
    vectors = run.vectors
    if not isinstance(vectors, Sparse) and run.transforms:
        # Lazily, so that an index that takes streams never needs all of them in memory.
        vectors = Stream.from_array(vectors)
    for transform in run.transforms:
        vectors = transform.transform(fitting_vectors(transform, vectors))
    index.compact(fitting_vectors(index, vectors))


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, in bytes."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:  # it is gone since it was listed
            continue
    return total
