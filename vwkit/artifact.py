"""Saved folders: a manifest with checksums beside plain arrays or one native file.

Nothing in an artifact is trusted before it is checked: the manifest names every file, each inside
the folder and with its SHA-256, and its own; a native library sees only bytes that passed. A folder is
written beside its place and renamed; an existing one is replaced by one rename of its manifest.
Nothing that differs between two equal runs (time, host, path) is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.drafts import Draft, synced, writing
from vwkit.errors import ArtifactError
from vwkit.hashing import file_sha256
from vwkit.leftovers import part_file, part_folder
from vwkit.manifests import (
    FORMAT,
    HASHED,
    MANIFEST,
    inside,
    is_artifact,
    own_sha256,
    read_manifest,
    text_of,
)
from vwkit.types import Array

__all__ = [
    "FORMAT",
    "MANIFEST",
    "MARKER",
    "Artifact",
    "Draft",
    "change_params",
    "is_artifact",
    "open_artifact",
    "open_whole",
    "write_artifact",
    "writing",
]

MARKER = ".vwkit"  # in other folders that we make, and may replace

_MAPPED_FROM = 1 << 20
_STALE_SECONDS = 3600.0


# Writing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def write_artifact(folder: str | Path, manifest: dict[str, Any]) -> Iterator[Draft]:
    """Write an artifact; nothing is left behind and nothing is lost if the block fails.

    Parameters
    ----------
    folder : path
        A new folder, an empty one, or an artifact to replace.
    manifest : dict
        Plain data that describe it. ``format`` and ``files`` are added.

    Raises
    ------
    ArtifactError
        `folder` holds something else, or its parent cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder}: a file is in the way of the folder to write")
        if folder.is_dir() and not is_artifact(folder) and any(folder.iterdir()):
            raise ArtifactError(
                f"{folder}: the folder holds files that are not a vwkit artifact; "
                "nothing was overwritten, name another folder"
            )
        parts = contextlib.ExitStack()
        part = parts.enter_context(part_folder(folder))
    draft = Draft(part, {"format": FORMAT, **manifest}, folder)
    try:
        yield draft
        with writing(folder):
            part.chmod(0o777 & ~_umask())
            draft.manifest["files"] = dict(sorted(draft.files.items()))
            plain = json.loads(json.dumps(draft.manifest))  # as it will be read
            plain["sha256"] = own_sha256(plain)
            (part / MANIFEST).write_text(text_of(plain), encoding="utf-8")
            synced(part / MANIFEST)
            _commit(part, folder)
    finally:
        for growing in draft._growing:  # left open by an error
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                growing._file.close()
        parts.close()


def change_params(folder: str | Path, values: Mapping[str, Any]) -> None:
    """Replace parameters in an artifact's manifest; its files stay as they are.

    Nothing is written if they are these already. The manifest becomes a new file, so that another
    name of the old one (a hard link) stays what it is.

    Parameters
    ----------
    folder : path
    values : dict
        Plain data.

    Raises
    ------
    ArtifactError
        It is no artifact, or it cannot be written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    before = manifest.get("params", {})
    plain = json.loads(json.dumps({**manifest, "params": {**before, **values}}))
    if plain == manifest:
        return
    plain.pop("sha256")
    plain["sha256"] = own_sha256(plain)
    with writing(folder):
        with part_file(folder / MANIFEST) as part:
            part.write_text(text_of(plain), encoding="utf-8")
            part.chmod(0o666 & ~_umask())
            synced(part)
            part.replace(folder / MANIFEST)
        _sync_folder(folder)


def _commit(part: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()  # an empty folder gives way to a plain rename
    if not folder.exists():
        part.rename(folder)
        _sync_folder(folder.parent)
        return
    # Names carry the hash of the content: what the old manifest names stays what it was.
    try:
        for path in sorted(part.iterdir()):
            if path.name != MANIFEST:
                _move(path, folder / path.name)
        _sync_folder(folder)
        (part / MANIFEST).replace(folder / MANIFEST)
        _sync_folder(folder)
    finally:
        _remove_stale(folder, older_than=0)  # of the old one, or of this one if it failed


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for path in sorted(source.iterdir()):
            _move(path, target / path.name)
    else:
        source.replace(target)


def _remove_stale(folder: Path, older_than: float) -> None:
    """Remove files of ours that the manifest does not name (a replacement was cut short)."""
    with contextlib.suppress(OSError, ArtifactError):
        manifest = read_manifest(folder)
        named = {name.split("/")[0] for name in manifest["files"]}
        named |= {child["folder"] for child in manifest.get("children", {}).values()}
        for path in folder.iterdir():
            ours = HASHED.match(path.name) and path.name not in named
            if ours and time.time() - path.stat().st_mtime >= older_than:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Reading ---------------------------------------------------------------------------------------


@dataclass
class Artifact:
    """An opened artifact whose files have passed their checksums."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The hash of the manifest, which holds the hash of everything else."""
        return file_sha256(self.folder / MANIFEST)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name; large ones are memory-mapped, read-only."""
        return {name: self._array(file) for name, file in self.manifest.get("arrays", {}).items()}

    def _array(self, name: str) -> Array:
        path = self.folder / name
        try:
            # A map is checked against the file's size: a header may claim any shape.
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # whatever a made-up header leads to
            said = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path}: not a readable array: {said}") from None
        return array if array.nbytes >= _MAPPED_FROM else np.array(array, order="K")

    @property
    def native(self) -> Path | None:
        """The folder with the library's own files, where there is one."""
        name = self.manifest.get("native")
        return self.folder / name if name else None

    def child(self, name: str) -> Path | None:
        """Return the folder of a nested artifact."""
        entry = self.manifest.get("children", {}).get(name)
        return self.folder / entry["folder"] if entry else None


def open_artifact(folder: str | Path) -> Artifact:
    """Open a saved folder and verify every file of it.

    Raises
    ------
    ArtifactError
        There is none, it is of a newer vwkit, or a file is missing, truncated or changed.
    """
    folder = Path(folder)
    try:
        return _open(folder)
    except (OSError, ValueError) as error:  # ValueError: a name that no system would take
        raise ArtifactError(f"{folder}: cannot be read: {error}") from None


def open_whole(folder: str | Path) -> Artifact:
    """Open a saved folder and verify every file of it and of the artifacts in it.

    Raises
    ------
    ArtifactError
        As `open_artifact`.
    """
    opened = open_artifact(folder)
    for name in opened.manifest.get("children", {}):
        child = opened.child(name)
        if child is not None:
            open_whole(child)
    return opened


def _open(folder: Path) -> Artifact:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; an artifact is a folder with {MANIFEST}")
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = inside(folder, name)
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(f"{path}: missing; {folder} is incomplete, make it again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(
                f"{path}: {size} bytes where the manifest says {entry['bytes']}; "
                "truncated or changed, make it again"
            )
        if file_sha256(path) != entry["sha256"]:
            raise ArtifactError(f"{path}: its checksum does not match; damaged, make it again")
    for entry in manifest.get("children", {}).values():
        path = inside(folder, entry["folder"]) / MANIFEST
        if path.is_symlink() or not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise ArtifactError(f"{path}: missing or changed; {folder} is damaged, make it again")
    if manifest.get("native"):
        _check_native(folder, manifest["native"], manifest["files"])
    _remove_stale(folder, _STALE_SECONDS)
    return Artifact(folder, manifest)


def _check_native(folder: Path, native: str, named: Mapping[str, Any]) -> None:
    """Refuse what a library might read though the manifest does not name it."""
    home = folder / native
    strange = [home] if home.is_symlink() else []
    if not strange:
        strange = [
            path
            for path in home.rglob("*")
            if path.relative_to(folder).as_posix() not in named
            and (path.is_symlink() or (path.is_file() and not path.name.startswith(".")))
        ]
    if strange:
        raise ArtifactError(f"{strange[0]}: not named in the manifest of {folder}; refused")
