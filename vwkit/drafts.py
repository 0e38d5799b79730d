"""A saved folder that is being written: its arrays, native files and parts, each with its checksum.

What is written gets a name with the hash of its content, so that a new folder can be put over an old one
(`vwkit.artifact`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from vwkit.errors import ArtifactError
from vwkit.hashing import file_sha256
from vwkit.manifests import MANIFEST
from vwkit.types import Array

__all__ = ["Draft", "Growing", "synced", "writing"]

_ASKED = 1 << 20  # bytes of a file that was cut short


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
                try:
                    np.save(file, np.asarray(array), allow_pickle=False)
                except OSError as error:
                    if error.errno is None:
                        _ask_why(file)
                    raise
            final = self._named(part, name, ".npy")
        self.manifest.setdefault("arrays", {})[name] = final

    def growing(self, name: str, dim: int | None, dtype: Any) -> Growing:
        """Add an array row by row; call `Growing.close` when all rows are in."""
        self._growing.append(Growing(self, name, dim, np.dtype(dtype)))
        return self._growing[-1]

    def take(self, path: Path, name: str, *, link: bool = False) -> None:
        """Add a finished ``.npy`` file; with `link` it also stays where it is."""
        with writing(self.target):
            digest = synced(path)
            final = self.folder / f"{name}-{digest[:16]}.npy"
            self.files[final.name] = {"sha256": digest, "bytes": path.stat().st_size}
            try:
                if link:
                    os.link(path, final)
                else:
                    path.rename(final)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, final)
                synced(final)
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
                sums[relative] = {"sha256": synced(path), "bytes": path.stat().st_size}
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
        digest = synced(part)
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
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says (no space, no permission, …) into one clear error."""
    try:
        yield
    except OSError as error:
        # NumPy says how much it wrote, and not why that was not all.
        why = error.strerror or f"{error}; the disk is full, or a file may not grow so long"
        raise ArtifactError(f"{folder}: cannot be written: {why}") from error


def _ask_why(file: IO[bytes]) -> None:
    """Have the system say why NumPy could write only a part: it tells no more than how much.

    Raises
    ------
    OSError
    """
    for _ in range(2):  # the first may find room for a part of it
        os.write(file.fileno(), bytes(_ASKED))


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


def synced(path: Path) -> str:
    """Put a file on the disk for good; return its SHA-256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return file_sha256(path)
