"""The cache of stages and features, addressed by content.

What is in it can always be made again, so a cache that cannot be written costs one warning, and a
damaged entry is dropped. Entries are hard-linked into run folders where the file system allows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vwkit.artifact import open_whole
from vwkit.checkpoints import read_archive
from vwkit.errors import ArtifactError, CacheWarning
from vwkit.hashing import file_sha256
from vwkit.types import Array

__all__ = ["Cache", "Entry", "cache_folder", "link_tree"]


def cache_folder() -> Path:
    """Return ``$VWKIT_CACHE``, else the user's cache folder + ``/vwkit``."""
    named = os.environ.get("VWKIT_CACHE")
    if named:
        return Path(named).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("vwkit", appauthor=False)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder, by hard links where possible."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            link_tree(path, target / path.name)
            continue
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copy2(path, target / path.name)


_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Entry:
    """One entry of the cache.

    Attributes
    ----------
    kind : str
        ``stages``, ``features`` or ``files``.
    path : Path
    size : int
        Bytes.
    used : float
        When it was last used, seconds since the epoch.
    """

    kind: str
    path: Path
    size: int
    used: float


class Cache:
    """Finished stages by key, features by image, and the hashes of files.

    Parameters
    ----------
    folder : Path, optional
        By default `cache_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self._warned = False
        self._hashes: sqlite3.Connection | None = None
        self.writable = self._try_folder()

    def _try_folder(self) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        except OSError as error:
            self._warn(error)
            return False

    def _warn(self, error: Exception) -> None:
        self.writable = False
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the cache folder {self.folder} cannot be written "
                f"({getattr(error, 'strerror', None) or error}); going on without a cache",
                CacheWarning,
                stacklevel=4,
            )

    # Stages

    def _stage(self, key: str) -> Path:
        return self.folder / "stages" / key[:2] / key

    def restore(self, key: str, target: Path) -> bool:
        """Put a finished stage into `target`, if it is here and undamaged."""
        source = self._stage(key)
        if not source.is_dir():
            return False
        try:
            open_whole(source)
        except ArtifactError:
            shutil.rmtree(source, ignore_errors=True)
            return False
        try:
            link_tree(source, target)
        except OSError:
            shutil.rmtree(target, ignore_errors=True)
            return False
        with contextlib.suppress(OSError):
            os.utime(source)
        return True

    def keep(self, key: str, source: Path) -> None:
        """Take in a finished stage."""
        target = self._stage(key)
        if not self.writable or target.exists():
            return
        part = target.with_name(f"{key}.{os.getpid()}.part")
        try:
            link_tree(source, part)
            part.rename(target)
        except OSError as error:
            if not target.exists():
                self._warn(error)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def drop(self, key: str) -> None:
        """Remove a stage."""
        shutil.rmtree(self._stage(key), ignore_errors=True)

    # Features of one image

    def _features(self, featurizer: str, image: str) -> Path:
        return self.folder / "features" / featurizer[:32] / image[:2] / f"{image}.npz"

    def features(self, featurizer: str, image: str) -> dict[str, Array] | None:
        """Return the arrays kept for an image under a featurizer's key."""
        path = self._features(featurizer, image)
        found = read_archive(path)
        if found is None:  # not there, or damaged
            with contextlib.suppress(OSError):
                path.unlink()
        return found

    def keep_features(self, featurizer: str, image: str, arrays: Mapping[str, Array]) -> None:
        """Keep the arrays of an image."""
        if not self.writable:
            return
        path = self._features(featurizer, image)
        part = path.with_name(f"{image}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            part.replace(path)
        except OSError as error:
            self._warn(error)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    # Hashes of files

    def file_key(self, path: Path) -> str:
        """Return the SHA-256 of a file's content, remembered by path, size, mtime and inode."""
        known = self.remembered(path)
        if known is not None:
            return known
        status, database = path.stat(), self._database()
        row = _row_of(path, status)
        digest = file_sha256(path)
        # A file written a moment ago may change again within the clock's grain.
        if database is not None and time.time_ns() - status.st_mtime_ns > 2_000_000_000:
            with contextlib.suppress(sqlite3.Error):
                database.execute("INSERT OR REPLACE INTO files VALUES (?,?,?,?,?)", (*row, digest))
        return digest

    def remembered(self, path: Path) -> str | None:
        """Return what `file_key` would, if that is known without reading the file."""
        database = self._database()
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                found = database.execute(
                    "SELECT hash FROM files WHERE path=? AND size=? AND mtime=? AND inode=?",
                    _row_of(path, path.stat()),
                ).fetchone()
                if found:
                    return str(found[0])
        return None

    def _database(self) -> sqlite3.Connection | None:
        if self._hashes is None and self.writable:
            try:
                self._hashes = sqlite3.connect(
                    self.folder / "files.sqlite", isolation_level=None, timeout=10
                )
                self._hashes.execute("PRAGMA synchronous=OFF")
                self._hashes.execute(
                    "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, "
                    "mtime INTEGER, inode INTEGER, hash TEXT)"
                )
            except sqlite3.Error:
                # Damaged or locked: hashes are computed again, nothing else is lost.
                self._hashes = None
                with contextlib.suppress(OSError):
                    (self.folder / "files.sqlite").unlink()
                return None
        return self._hashes

    def close(self) -> None:
        """Let go of the database."""
        if self._hashes is not None:
            self._hashes.close()
            self._hashes = None

    # Upkeep

    def entries(self) -> Iterator[Entry]:
        """Yield what is here, the least recently used first."""
        found = []
        for path in self.folder.glob("stages/??/*"):
            if path.is_dir() and path.suffix != ".part":
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                found.append(Entry("stages", path, size, path.stat().st_mtime))
        for path in self.folder.glob("files/*"):
            # Fetched from a URL: the file is in a folder that is called by its hash.
            if path.is_dir():
                size = sum(file.stat().st_size for file in path.iterdir())
                found.append(Entry("files", path, size, path.stat().st_mtime))
        for path in self.folder.glob("features/*/??/*.npz"):
            status = path.stat()
            found.append(Entry("features", path, status.st_size, status.st_mtime))
        yield from sorted(found, key=lambda entry: (entry.used, str(entry.path)))

    def clear(self) -> int:
        """Remove everything; return the bytes freed."""
        return self.trim(0)

    def _sweep(self) -> None:
        """Remove what killed processes were putting in; what is recent may still be written to."""
        for pattern in ("stages/??/*.part", "features/*/??/*.part"):
            for path in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime < _STALE_SECONDS:
                        continue
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    def trim(self, size: int) -> int:
        """Remove the least recently used entries until at most `size` bytes are left."""
        self._sweep()
        entries = list(self.entries())
        total = sum(entry.size for entry in entries)
        freed = 0
        for entry in entries:
            if total - freed <= size:
                break
            if entry.path.is_dir():
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                entry.path.unlink(missing_ok=True)
            freed += entry.size
        return freed


def _row_of(path: Path, status: os.stat_result) -> tuple[str, int, int, int]:
    # A name that is not UTF-8 holds lone surrogates, which the database does not take.
    name = str(path.absolute()).encode("utf-8", "backslashreplace").decode()
    return name, status.st_size, status.st_mtime_ns, status.st_ino
