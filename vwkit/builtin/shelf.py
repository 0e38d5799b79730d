"""The shards of an index: kept in memory as far as it goes, else in their files, opened when needed."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vwkit.base import load
from vwkit.cache import link_tree
from vwkit.errors import ArtifactError, VwkitError
from vwkit.index import Index
from vwkit.jobs import job

__all__ = ["Shard", "Shelf", "unpacked_folder"]

# Of the job's memory, what shards that are not mapped may hold while they are searched.
_SHARE = 2
# What a vector takes besides its numbers: links of a graph, row numbers.
_BESIDE = 192


class Shard:
    """One shard: an index in memory, or a saved one that is opened when somebody asks for it.

    Parameters
    ----------
    rows : int
        Rows that it was given, removed ones too.
    index : Index, optional
        In memory, with changes that no file has.
    folder : Path, optional
        Where it is saved, unchanged.
    """

    # It stands for a fitted backend where one is saved.
    _fitted = True

    def __init__(
        self, rows: int, *, index: Index | None = None, folder: Path | None = None
    ) -> None:
        self.rows = rows
        self.index = index
        self.folder = folder
        self.lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """About what it takes in memory, or, where it is saved, the size of its files."""
        if self.folder is not None:
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        dim = self.index.dim if self.index is not None else 0
        return self.rows * (4 * dim + _BESIDE)

    def save(self, folder: Path) -> None:
        """Write it to a new folder; a saved one by hard links, where the file system has them."""
        if self.folder is None:
            if self.index is None:
                raise ArtifactError(f"{folder}: a shard was lost")
            self.index.save(folder)
            return
        try:
            link_tree(self.folder, folder)
        except FileNotFoundError:
            raise _gone(self.folder) from None


class Shelf:
    """All shards of one index, and which of them are in memory.

    Saved ones that are mapped stay open; of others, the least recently used are let go beyond
    half of the job's memory. Changed ones beyond it are saved to a temporary folder.

    Parameters
    ----------
    like : Index
        What every shard is one of.
    dim : int
    shards : list of Shard or None
        In row order; None where every row was removed.
    """

    def __init__(self, like: Index, dim: int, shards: list[Shard | None]) -> None:
        self.like = like
        self.dim = dim
        self.shards = shards
        self._open: OrderedDict[int, tuple[Index, int]] = OrderedDict()
        self._table = threading.Lock()
        self._temporary: Path | None = None
        self._clear: weakref.finalize[Any, Any] | None = None
        self._spilled = 0
        #: Folders in a job's folder that belong to these shards alone.
        self.own: list[Path] = []

    def __iter__(self) -> Iterator[tuple[int, Shard]]:
        """Yield number and shard; those that hold nothing any more are left out."""
        for number, shard in enumerate(self.shards):
            if shard is not None:
                yield number, shard

    def is_open(self, shard: Shard) -> bool:
        """Tell whether a shard is in memory, or mapped, already."""
        return shard.index is not None or id(shard) in self._open

    def opened(self, shard: Shard) -> Index:
        """Return a shard's index; it stays valid for who has it when it is let go."""
        if shard.index is not None:
            return shard.index
        with shard.lock:
            with self._table:
                found = self._open.get(id(shard))
                if found is not None:
                    self._open.move_to_end(id(shard))
                    return found[0]
            size = 0 if self.like.memory_mapped else shard.bytes
            self._make_room(size)
            index = self._loaded(shard)
            with self._table:
                self._open[id(shard)] = index, size
            return index

    def fresh(self, shard: Shard) -> Shard:
        """Return a shard to change: the one in memory itself, else one newly opened."""
        if shard.folder is None:
            return shard
        return Shard(shard.rows, index=self._loaded(shard))

    def exchange(self, shards: list[Shard | None]) -> None:
        """Take other shards in the place of these; those that are gone are let go."""
        kept = {id(shard) for shard in shards}
        for shard in self.shards:
            if shard is not None and id(shard) not in kept:
                with self._table:
                    self._open.pop(id(shard), None)
                self._drop_spilled(shard)
        self.shards = shards

    def settle(self, shards: list[Shard | None], room: int = 0) -> None:
        """Save some of what is only in memory to a temporary folder, where it is too much."""
        budget = job().memory // _SHARE
        held = [shard for shard in shards if shard is not None and shard.folder is None]
        size = room + sum(shard.bytes for shard in held)
        for shard in held:
            if size <= budget:
                break
            size -= shard.bytes
            self.spill(shard)

    def spill(self, shard: Shard, folder: Path | None = None) -> None:
        """Save a shard of memory, to a temporary folder by default, and let go of it."""
        if shard.index is None:
            return
        if folder is None:
            folder = self.new_folder()
        shard.index.save(folder)
        shard.folder, shard.index = folder, None

    def new_folder(self) -> Path:
        """Return a path for a shard in the temporary folder, which is made if there is none."""
        if self._temporary is None or not self._temporary.is_dir():
            place = job().folder
            if place is not None:
                place.mkdir(parents=True, exist_ok=True)
            self.keep(Path(tempfile.mkdtemp(prefix="vwkit-shards-", dir=place)))
        self._spilled += 1
        return Path(str(self._temporary)) / f"{self._spilled:06d}"

    def discard(self) -> None:
        """Remove what was written for these shards alone: they are not used any more."""
        self._open.clear()
        for folder in self.own:
            shutil.rmtree(folder, ignore_errors=True)
        if self._clear is not None:
            self._clear()

    def keep(self, holder: Path) -> None:
        """Remove a temporary folder together with these shards, whose files are in it."""
        self._temporary = holder
        self._clear = weakref.finalize(self, shutil.rmtree, holder, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        budget = job().memory // _SHARE
        with self._table:
            held = size + sum(other for _, other in self._open.values())
            for key in list(self._open):
                if held <= budget:
                    break
                held -= self._open[key][1]
                if self._open[key][1]:
                    del self._open[key]

    def _loaded(self, shard: Shard) -> Index:
        folder = shard.folder
        if folder is None or not folder.is_dir():
            raise _gone(folder)
        index = load(folder)
        if not (
            type(index) is type(self.like)
            and index._fitted
            and index.metric == self.like.metric
            and index.dim == self.dim
            and index._held_ids.total == shard.rows
            and index._held_ids.ids is None
        ):
            raise ArtifactError(
                f"{folder}: not the shard that is needed ({shard.rows:,} vectors of {self.dim} "
                f"dimensions in a {self.like.name} of metric {self.like.metric}); damaged, make the "
                "index again"
            )
        found: Index = index
        return found

    def _drop_spilled(self, shard: Shard) -> None:
        if shard.folder is not None and shard.folder.parent == self._temporary:
            shutil.rmtree(shard.folder, ignore_errors=True)


def _gone(folder: Path | None) -> VwkitError:
    return ArtifactError(
        f"{folder}: this shard of the index is gone: its folder was moved or removed since the index "
        "was opened; open it again where it is now"
    )


def unpacked_folder(files: Mapping[str, bytes]) -> Path:
    """Write carried files to the subfolder ``saved`` of a new temporary folder; return the latter."""
    holder = Path(tempfile.mkdtemp(prefix="vwkit-shards-"))
    for name, content in files.items():
        target = holder / "saved" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return holder
