"""Checkpoints: files of named arrays that are whole or not there, and are read with suspicion."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vwkit.types import Array

__all__ = ["found_checkpoints", "read_archive", "read_checkpoint", "write_checkpoint"]

_NAME = re.compile(r"step-([0-9]{9,18})\.npz")
_COUNT = "__arrays__"
_PIECE = 8 << 20
# Larger arrays are mapped: what is taken up need not fit into memory twice.
_MAPPED_FROM = 64 << 20
_ALIGNED = 64
_LOCAL_HEADER, _ZIP64_EXTRA = 30, 20
_PADDING_ID = 0x7677


def found_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return step and path of the checkpoints in a folder, the last step last.

    What has another name is not ours and is left alone.
    """
    found = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            named = _NAME.fullmatch(path.name)
            if named and path.is_file() and not path.is_symlink():
                found.append((int(named[1]), path))
    return sorted(found)


def write_checkpoint(folder: Path, step: int, arrays: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place, sync it, and rename it.

    It is a ``.npz`` file whose arrays begin at multiples of 64 bytes, so that they can be mapped.

    Raises
    ------
    OSError
        It cannot be written; then nothing is left of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.npz"
    part = path.with_suffix(".part")
    # The count finds out a damaged directory that hides an array; CRCs do the rest.
    held = {_COUNT: np.array(len(arrays)), **{name: np.asarray(arrays[name]) for name in arrays}}
    try:
        with part.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, array in held.items():
                    info = zipfile.ZipInfo(f"{name}.npy")
                    info.extra = _padding(file.tell(), info.filename)
                    with archive.open(info, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _padding(start: int, name: str) -> bytes:
    """Return an extra field that makes the data behind a local header begin where they can be mapped."""
    end = start + _LOCAL_HEADER + len(name.encode()) + _ZIP64_EXTRA + 4
    size = -end % _ALIGNED
    return _PADDING_ID.to_bytes(2, "little") + size.to_bytes(2, "little") + bytes(size)


def read_checkpoint(path: Path) -> dict[str, Array] | None:
    """Return the arrays of a checkpoint, or None if it is damaged or none at all; see `read_archive`."""
    found = read_archive(path)
    count = None if found is None else found.pop(_COUNT, None)
    if found is None or count is None or count.shape != () or count != len(found):
        return None
    return found


def read_archive(path: Path) -> dict[str, Array] | None:
    """Return the arrays of a ``.npz`` file that is not compressed, or None if it is damaged or other.

    Every byte of them has passed its checksum. No more memory is taken than the file has bytes, and
    large arrays are memory maps (writable ones, which leave the file as it is).
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            size = os.fstat(file.fileno()).st_size
            if sum(info.file_size for info in infos) > size:
                return None
            found: dict[str, Array] = {}
            for info in infos:
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    return None
                with archive.open(info) as member:
                    while member.read(_PIECE):  # which compares the CRC at the end
                        pass
                found[info.filename.removesuffix(".npy")] = _array(path, file, info)
            return found
    except Exception:  # whatever a damaged or made-up archive leads to
        return None


def _array(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> Array:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    start = info.header_offset + _LOCAL_HEADER
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    file.seek(start)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"a header of version {version}, which is not written")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    count = 1
    for length in shape:
        count *= length
    if dtype.hasobject or offset - start + count * dtype.itemsize != info.file_size:
        raise ValueError("the header claims another size than there is")
    order: Any = "F" if fortran else "C"
    if count * dtype.itemsize >= _MAPPED_FROM:
        return np.asarray(np.memmap(path, dtype, "c", offset, shape, order))
    file.seek(offset)
    data = bytearray(file.read(count * dtype.itemsize))
    return np.frombuffer(data, dtype, count).reshape(shape, order=order)
