"""What it takes to write a stage's artifact, hash it and put it into the cache."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import write_artifact
from vwkit.cache import Cache, cache_folder
from vwkit.planning.measuring import Measurements
from vwkit.planning.meters import Clock
from vwkit.planning.spent import NOTHING, Spent

__all__ = ["Keeping"]

_LARGE = 16 << 20


@dataclass(frozen=True)
class Keeping:
    """Time to keep a stage's result, besides making it.

    Attributes
    ----------
    each : Spent
        Of any stage, however small.
    byte : Spent
        Of each byte of its files.
    """

    each: Spent = NOTHING
    byte: Spent = NOTHING

    @classmethod
    def measured(cls, measured: Measurements) -> Keeping:
        """Write a small artifact and a larger one, where runs keep theirs."""
        told = measured.of({"keeping": _LARGE}, lambda _: _tried())
        return cls(Spent.of(told, "each"), Spent.of(told, "byte"))

    def of(self, size: float) -> Spent:
        """Tell the time of an artifact of so many bytes."""
        return self.each + self.byte * size


def _tried() -> dict[str, Any]:
    large = np.zeros(_LARGE, np.uint8)
    parent = cache_folder()
    with tempfile.TemporaryDirectory(
        prefix="vwkit-plan-", dir=parent if parent.is_dir() else None
    ) as name:
        folder = Path(name)
        cache = Cache(folder / "cache")
        try:
            _kept(cache, folder / "first", large[:16])  # what is done only once
            small = _kept(cache, folder / "small", large[:16])
            whole = _kept(cache, folder / "large", large)
        finally:
            cache.close()
    return {"each": small.plain(), "byte": (whole.less(small) * (1 / _LARGE)).plain()}


def _kept(cache: Cache, folder: Path, array: Any) -> Spent:
    with Clock() as clock:
        with write_artifact(folder, {"role": "stage", "name": folder.name}) as draft:
            draft.array("rows", array)
        cache.keep(folder.name, folder)
    return clock.spent
