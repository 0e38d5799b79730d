"""Saved folders: a manifest with checksums beside plain arrays or one native file.

Nothing in an artifact is trusted before it is checked: the manifest names every file, each inside
the folder and with its SHA-256, and its own; a native library sees only bytes that passed. A folder is
written beside its place and renamed; an existing one is replaced by one rename of its manifest.
Nothing that differs between two equal runs (time, host, path) is in it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vwkit.errors import ArtifactError
from vwkit.hashing import file_sha256
from vwkit.leftovers import part_file, part_folder
from vwkit.types import Array

__all__ = [
    "FORMAT",
    "Artifact",
    "Draft",
    "change_params",
    "is_artifact",
    "open_artifact",
    "open_whole",
    "write_artifact",
    "writing",
]

FORMAT = 1
MANIFEST = "manifest.json"
MARKER = ".vwkit"  # in other folders that we make, and may replace

_MANIFEST_LIMIT = 16 << 20
_MAPPED_FROM = 1 << 20
_HASHED = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.]*-[0-9a-f]{16}(\.npy)?$")
_STALE_SECONDS = 3600.0


def is_artifact(folder: Path) -> bool:
    """Tell whether a folder holds a manifest of ours (nothing is checked yet)."""
    return (folder / MANIFEST).is_file()


# Writing ---------------------------------------------------------------------------------------


@dataclass
class Draft:
    """An artifact being written: data files go to `folder`, what describes them to `manifest`.

    When all is well, `folder` becomes `target`.
    """

    folder: Path
    manifest: dict[str, Any]
    target: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    _growing: list[Growing] = field(default_factory=list)

    def array(self, name: str, array: Array) -> None:
        """Add one array as a ``.npy`` file."""
        part = self.folder / f"{name}.part"
        with writing(self.target):
            with part.open("wb") as file:
                np.save(file, np.asarray(array), allow_pickle=False)
            final = self._named(part, name, ".npy")
        self.manifest.setdefault("arrays", {})[name] = final

    def growing(self, name: str, dim: int | None, dtype: Any) -> Growing:
        """Add an array row by row; call `Growing.close` when all rows are in."""
        self._growing.append(Growing(self, name, dim, np.dtype(dtype)))
        return self._growing[-1]

    def take(self, path: Path, name: str, *, link: bool = False) -> None:
        """Add a finished ``.npy`` file; with `link` it also stays where it is."""
        with writing(self.target):
            digest = _synced(path)
            final = self.folder / f"{name}-{digest[:16]}.npy"
            self.files[final.name] = {"sha256": digest, "bytes": path.stat().st_size}
            try:
                if link:
                    os.link(path, final)
                else:
                    path.rename(final)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, final)
                _synced(final)
        self.manifest.setdefault("arrays", {})[name] = final.name

    def native(self, save: Callable[[Path], None]) -> None:
        """Let a library write its own files into an empty folder."""
        part = self.folder / "native.part"
        with writing(self.target):
            part.mkdir()
            save(part)
            inside = sorted(path for path in part.rglob("*") if path.is_file())
            _check_room(part, inside)
            digest = hashlib.sha256()
            sums = {}
            for path in inside:
                relative = path.relative_to(part).as_posix()
                sums[relative] = {"sha256": _synced(path), "bytes": path.stat().st_size}
                digest.update(f"{relative} {sums[relative]['sha256']}\n".encode())
            name = f"native-{digest.hexdigest()[:16]}"
            part.rename(self.folder / name)
        self.files.update({f"{name}/{relative}": entry for relative, entry in sums.items()})
        self.manifest["native"] = name

    def child(self, name: str, save: Callable[[Path], None]) -> None:
        """Add another artifact as a subfolder."""
        part = self.folder / f"{name}.part"
        save(part)
        with writing(self.target):
            digest = file_sha256(part / MANIFEST)
            final = f"{name}-{digest[:16]}"
            part.rename(self.folder / final)
        children = self.manifest.setdefault("children", {})
        children[name] = {"folder": final, "sha256": digest}

    def _named(self, part: Path, name: str, suffix: str) -> str:
        digest = _synced(part)
        final = f"{name}-{digest[:16]}{suffix}"
        self.files[final] = {"sha256": digest, "bytes": part.stat().st_size}
        part.rename(self.folder / final)
        return final


class Growing:
    """An array being written row by row; memory does not grow with it."""

    def __init__(self, draft: Draft, name: str, dim: int | None, dtype: np.dtype[Any]) -> None:
        self._draft = draft
        self._name = name
        self._tail = () if dim is None else (dim,)
        self._dtype = dtype
        self._path = draft.folder / f"{name}.part"
        self.rows = 0
        with writing(draft.target):
            self._file = self._path.open("wb")
            self._header()

    def _header(self) -> None:
        # NumPy leaves room in the header for the number of rows to grow.
        described = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.rows, *self._tail),
        }
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, described)

    def append(self, rows: Array) -> None:
        """Write (n,) or (n, dim) rows behind those written."""
        with writing(self._draft.target):
            self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Finish the file and put it into the draft."""
        with writing(self._draft.target):
            self._file.flush()
            self._header()
            self._file.close()
            final = self._draft._named(self._path, self._name, ".npy")
        self._draft.manifest.setdefault("arrays", {})[self._name] = final


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
            plain["sha256"] = _own_sha256(plain)
            (part / MANIFEST).write_text(_text(plain), encoding="utf-8")
            _synced(part / MANIFEST)
            _commit(part, folder)
    finally:
        for growing in draft._growing:  # left open by an error
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                growing._file.close()
        parts.close()


def _check_room(folder: Path, files: list[Path]) -> None:
    """Refuse what was written when there was no more room: not every library says that it failed."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and any(path.stat().st_size >= limit for path in files):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    disk = os.statvfs(folder)
    free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    if disk.f_blocks and free == 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says (no space, no permission, …) into one clear error."""
    try:
        yield
    except OSError as error:
        # NumPy says how much it wrote, and not why that was not all.
        why = error.strerror or f"{error}; the disk is full, or a file may not grow so long"
        raise ArtifactError(f"{folder}: cannot be written: {why}") from error


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
    manifest = _read_manifest(folder)
    before = manifest.get("params", {})
    plain = json.loads(json.dumps({**manifest, "params": {**before, **values}}))
    if plain == manifest:
        return
    plain.pop("sha256")
    plain["sha256"] = _own_sha256(plain)
    with writing(folder):
        with part_file(folder / MANIFEST) as part:
            part.write_text(_text(plain), encoding="utf-8")
            part.chmod(0o666 & ~_umask())
            _synced(part)
            part.replace(folder / MANIFEST)
        _sync_folder(folder)


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def _own_sha256(manifest: dict[str, Any]) -> str:
    """Hash the manifest itself, without the entry that holds the result."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(_text(rest).encode()).hexdigest()


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
        manifest = _read_manifest(folder)
        named = {name.split("/")[0] for name in manifest["files"]}
        named |= {child["folder"] for child in manifest.get("children", {}).values()}
        for path in folder.iterdir():
            ours = _HASHED.match(path.name) and path.name not in named
            if ours and time.time() - path.stat().st_mtime >= older_than:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _synced(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return file_sha256(path)


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
    manifest = _read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = _inside(folder, name)
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
        path = _inside(folder, entry["folder"]) / MANIFEST
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


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.is_symlink() or path.stat().st_size > _MANIFEST_LIMIT:
            raise ArtifactError(f"{path}: not a manifest of vwkit")
        text = path.read_bytes().decode("utf-8")
        manifest = json.loads(text)
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder}: no {MANIFEST} in it, so it is not something that vwkit saved"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path}: not valid JSON; damaged, make it again") from None
    _check_manifest(path, manifest, text)
    checked: dict[str, Any] = manifest
    return checked


def _check_manifest(path: Path, manifest: Any, text: str) -> None:
    def need(fine: bool) -> None:
        if not fine:
            raise ArtifactError(f"{path}: not a manifest of vwkit, or damaged; make it again")

    need(isinstance(manifest, dict) and type(manifest.get("format")) is int)
    need(manifest["format"] > 0)
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest['format']}, made by a newer vwkit; "
            f"this one reads up to format {FORMAT}: update vwkit"
        )
    # Equal text too: a changed byte need not change what it means.
    need(manifest.get("sha256") == _own_sha256(manifest) and text == _text(manifest))
    need(isinstance(manifest.get("files"), dict))
    for entry in manifest["files"].values():
        need(isinstance(entry, dict) and type(entry.get("bytes")) is int)
        need(isinstance(entry.get("sha256"), str))
    arrays = manifest.get("arrays", {})
    need(isinstance(arrays, dict))
    need(all(isinstance(name, str) and name in manifest["files"] for name in arrays.values()))
    native = manifest.get("native")
    need(native is None or (isinstance(native, str) and _HASHED.match(native) is not None))
    children = manifest.get("children", {})
    need(isinstance(children, dict))
    for entry in children.values():
        need(isinstance(entry, dict) and isinstance(entry.get("sha256"), str))
        need(isinstance(entry.get("folder"), str) and _HASHED.match(entry["folder"]) is not None)


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file that the manifest names, if it cannot lead out of the folder."""
    parts = PurePosixPath(name).parts
    plain = parts and "\\" not in name and not any(part in ("..", "/") for part in parts)
    path = folder / name
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder}: its manifest names {name!r}, outside the folder")
    return path
