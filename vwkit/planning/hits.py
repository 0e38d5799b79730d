"""What is there already: stages and features by the keys that a run would ask for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import MANIFEST
from vwkit.base import Backend
from vwkit.cache import Cache
from vwkit.errors import VwkitError
from vwkit.formats.remote import Place, RemotePlace
from vwkit.hashing import content_key
from vwkit.remote import place_key
from vwkit.run_folder import INNER, read_small
from vwkit.stages import signature

__all__ = ["Hit", "Hits", "Shape"]

# Files are hashed for a plan only while they are small altogether; a run remembers their hashes.
_HASHED = 64 << 20

Shape = tuple[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Hit:
    """Whether a stage is there.

    Attributes
    ----------
    key : str or None
        None where what decides it is not known.
    state : str
        ``yes``, ``run``, ``no`` or ``unknown``.
    folder : Path or None
    """

    key: str | None = None
    state: str = "unknown"
    folder: Path | None = None

    @property
    def found(self) -> bool:
        """Whether it need not be computed."""
        return self.folder is not None

    def shapes(self) -> dict[str, Shape]:
        """Return shape and dtype of its arrays, from their headers."""
        found: dict[str, Shape] = {}
        if self.folder is None:
            return found
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            manifest = json.loads(read_small(self.folder / MANIFEST))
            for name, file in manifest.get("arrays", {}).items():
                path = self.folder / file
                if path.parent != self.folder or path.is_symlink() or not path.is_file():
                    continue  # not of ours
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                found[name] = array.shape, array.dtype
        return found

    def size(self) -> int:
        """Return its bytes."""
        if self.folder is None:
            return 0
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


class Hits:
    """Looks stages up; nothing is written.

    Parameters
    ----------
    cache : Cache
    out : Path, optional
        A run folder whose interrupted run would be resumed.
    """

    def __init__(self, cache: Cache, out: Path | None = None) -> None:
        self.cache = cache
        self._hashed = 0
        self._inner = None if out is None else out / INNER
        self._earlier: dict[str, Any] = {}
        if self._inner is not None:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                earlier = json.loads(read_small(self._inner / "checkpoints" / "stages.json"))
                self._earlier = earlier if isinstance(earlier, dict) else {}

    def look(self, name: str, inputs: Any) -> Hit:
        """Look for a stage; `inputs` is None where something that decides it is not known."""
        if inputs is None:
            return Hit()
        key = content_key({"stage": name, "inputs": inputs})
        earlier = self._earlier.get(name)
        if self._inner is not None and isinstance(earlier, dict) and earlier.get("key") == key:
            folder = self._inner / "next" / name
            if (folder / MANIFEST).is_file():
                return Hit(key, "run", folder)
        folder = self.cache._stage(key)
        if (folder / MANIFEST).is_file():
            return Hit(key, "yes", folder)
        return Hit(key, "no")

    def signature(self, backend: Backend, *, late: bool = False) -> Any:
        """Describe a backend as a run does; None if a file cannot be read."""
        try:
            return signature(backend, self.cache, late=late)
        except OSError:
            return None

    def file_key(self, path: Place) -> Any:
        """Return a file's hash if it is remembered, or quick to compute."""
        if isinstance(path, RemotePlace):
            with contextlib.suppress(VwkitError):
                return place_key(self.cache, path)
            return None
        with contextlib.suppress(OSError):
            known = self.cache.remembered(path)
            if known is not None:
                return known
            size = path.stat().st_size
            if self._hashed + size <= _HASHED:
                self._hashed += size
                return self.cache.file_key(path)
        return None

    def features(self, featurizer: str, images: Sequence[str | None]) -> list[bool]:
        """Tell for each image, by its hash, whether its features are kept."""
        return [
            image is not None and self.cache._features(featurizer, image).is_file()
            for image in images
        ]
