"""What is this file? Formats, sizes and checks of whatever vwkit reads or writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import is_artifact, open_whole
from vwkit.builtin.readers import open_stream
from vwkit.errors import ArtifactError, DataError
from vwkit.formats import open_vectors
from vwkit.formats.remote import Place, RemotePlace, place_of
from vwkit.run import Run
from vwkit.run_folder import INNER

__all__ = ["inspect_path"]


def inspect_path(path: str | Path) -> dict[str, Any]:
    """Describe and check a descriptor file, an artifact, a run folder or a words folder.

    A descriptor file may be at a URL; folders are local.

    Raises
    ------
    VwkitError
        It is damaged, truncated, or nothing of these.
    """
    place = place_of(path)
    if isinstance(place, Path) and place.is_dir():
        path = place
        if (path / INNER).is_dir() or (is_artifact(path) and (path / "items.jsonl").is_file()):
            return _run(path)
        if is_artifact(path):
            return _artifact(path)
        if (path / "words.npy").is_file():
            return _words(path)
        raise ArtifactError(f"{path}: a folder that is neither an artifact, a run nor words")
    return _vectors(place)


def _vectors(path: Place) -> dict[str, Any]:
    file = open_vectors(path)
    stream = open_stream(path)
    rows = 0
    low, high = np.inf, -np.inf
    for chunk in stream:
        good = np.isfinite(chunk).all(axis=1)
        if not good.all():
            row = rows + int(np.flatnonzero(~good)[0])
            raise DataError(f"{path}: row {row} holds NaN or infinity")
        rows += len(chunk)
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    return {
        "file": str(path),
        "format": file.format,
        "rows": rows,
        "dim": stream.dim,
        "dtype": str(stream.dtype),
        "bytes": path.size if isinstance(path, RemotePlace) else path.stat().st_size,
        "minimum": low,
        "maximum": high,
        "checked": "every row: dimension, finite values",
    }


def _artifact(path: Path) -> dict[str, Any]:
    artifact = open_whole(path)
    manifest = artifact.manifest
    arrays = {name: f"{array.shape} {array.dtype}" for name, array in artifact.arrays().items()}
    identity = manifest.get("identity") or {}
    return {
        "artifact": str(path),
        "role": manifest.get("role"),
        "name": manifest.get("name"),
        "package": manifest.get("package"),
        "metric": manifest.get("metric"),
        "dim": identity.get("dim"),
        "kind": identity.get("kind"),
        "params": manifest.get("params"),
        "arrays": arrays,
        "nested": sorted(manifest.get("children", {})),
        "checked": "every checksum",
    }


def _run(path: Path) -> dict[str, Any]:
    run = Run.open(path)
    run.check()
    return {
        "run": str(path),
        "vwkit": run.manifest["vwkit"],
        "items": len(run.items),
        **{name: count for name, count in run.manifest["counts"].items() if name != "items"},
        "stages": list(run.manifest["stages"]),
        "mAP": (run.scores or {}).get("mAP"),
        "checked": "items and every stage's checksums",
    }


def _words(path: Path) -> dict[str, Any]:
    from vwkit.outputs.words import read_words

    words, items = read_words(path)
    return {
        "words": str(path),
        "items": len(items),
        "rows": len(words.words),
        "largest word": int(words.words.max()) if len(words.words) else None,
        "keypoints": words.keypoints is not None,
        "checked": "offsets and items fit",
    }
