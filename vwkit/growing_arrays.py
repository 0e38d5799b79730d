"""Arrays of a stage that are written row by row, and that a killed process leaves to the next.

Rows go to files in the job's folder. Now and then they are synced, and a line is added to a journal
that says how far they are, with the checksum of every block of them and its own. Whoever comes next
reads the journal as far as its lines and the blocks they tell of are whole, and goes on from there: a
torn or flipped block costs what lies behind it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from vwkit.artifact import Draft, writing
from vwkit.errors import ArtifactError
from vwkit.jobs import Job
from vwkit.types import Array

__all__ = ["GrowingArrays"]

FOLDER = "rows"
JOURNAL = "journal"

# Seconds of work that may be lost; records cost at most one twentieth of the time between them.
_EVERY = 1.0
_SHARE = 20
_BLOCK = 8 << 20
_LONGEST_LINE = 64 << 20
_NAME = re.compile(r"[a-z_]{1,64}")
# What a file system says that cannot set room aside; any other answer is meant.
_NO_ROOM_KEPT = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}


class GrowingArrays:
    """The arrays of one stage, written row by row.

    Use it in a ``with`` block within `write_artifact`, and go on from `position`. Without a folder of
    the job nothing is kept, and everything else is the same.

    Parameters
    ----------
    draft : Draft
        Takes the finished arrays.
    job : Job
        Its folder holds the rows until then.

    Attributes
    ----------
    position : int
        How far the source was read: what an earlier process recorded last, and since then what
        `step` was told.
    notes : list
        What `step` was told beside that, in order.
    """

    def __init__(self, draft: Draft, job: Job) -> None:
        self.position = 0
        self.notes: list[Any] = []
        self._draft, self._job = draft, job
        self._keeps = job.folder is not None
        self._folder = draft.folder if job.folder is None else job.folder / FOLDER
        self._files: dict[str, _Rows] = {}
        self._noted = 0  # notes that are recorded
        self._recorded = 0  # the position that is
        self._clean = True  # nothing was appended since the last step
        self._journal: IO[bytes] | None = None
        self._free_from = time.monotonic() + _EVERY
        if self._keeps:
            with writing(draft.target):
                if not job.resumable:
                    _remove(self._folder)
                self._take_up()

    def __enter__(self) -> GrowingArrays:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self._clean:
            with contextlib.suppress(ArtifactError):  # such as the one that brought us here
                self._record()
        for rows in self._files.values():
            with contextlib.suppress(OSError, ValueError):
                rows.file.close()
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.close()

    def array(self, name: str, dim: int | None, dtype: Any, rows: int | None = None) -> None:
        """Begin an array, unless an earlier process did.

        Parameters
        ----------
        name : str
            Small letters and underscores.
        dim : int or None
            Columns; None for one value per row.
        dtype : dtype
        rows : int, optional
            How many there will be. Then room for them is set aside at once, where the file system
            can.

        Raises
        ------
        ArtifactError
            There is no room, or it cannot be written.
        """
        held = self._files.get(name)
        with writing(self._draft.target):
            if held is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                held = self._files[name] = _Rows(self._folder / f"{name}.npy", dim, np.dtype(dtype))
                held.begin()
            elif held.dim != dim:
                raise ArtifactError(f"{held.path}: of another shape; remove {self._folder}")
            if rows is not None:
                held.set_aside(rows)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def append(self, name: str, rows: Array) -> None:
        """Write (n,) or (n, dim) rows behind those of an array."""
        self._clean = False
        with writing(self._draft.target):
            self._files[name].append(rows)

    def step(self, position: int, note: Any = None) -> None:
        """Say that all is written of the source up to `position`; it may be recorded now.

        Parameters
        ----------
        position : int
        note : plain data, optional
            Kept with it, for `notes`.
        """
        self.position, self._clean = position, True
        if note is not None:
            self.notes.append(note)
        if self._keeps and time.monotonic() >= self._free_from:
            self._record()

    def close(self) -> None:
        """Finish all arrays and put them into the draft."""
        for name, rows in self._files.items():
            with writing(self._draft.target):
                rows.finish()
            # Linked, not moved: whoever is killed before all is done finds the rows again.
            self._draft.take(rows.path, name, link=self._keeps)

    # What is kept

    def _record(self) -> None:
        if not self._keeps or (self.position == self._recorded and len(self.notes) == self._noted):
            return
        start = time.monotonic()
        with writing(self._draft.target):
            for rows in self._files.values():
                rows.sync()
            line = {
                "at": self.position,
                "notes": self.notes[self._noted :],
                "arrays": {name: rows.block() for name, rows in self._files.items()},
            }
            self._write(line)
        for rows in self._files.values():
            rows.recorded()
        self._recorded, self._noted = self.position, len(self.notes)
        end = time.monotonic()
        self._free_from = end + max(_EVERY, _SHARE * (end - start))
        seconds = round(end - start, 3)
        self._job.note("checkpoint written", level="debug", step=self.position, seconds=seconds)

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":")).encode()
        if self._journal is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._journal = _opened(self._folder / JOURNAL)
            self._journal.seek(0, os.SEEK_END)
        self._journal.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _take_up(self) -> None:
        """Go on from the last record that is whole, with all before it."""
        try:
            journal = _opened(self._folder / JOURNAL, create=False)
        except OSError:  # none, or no plain file: nothing to go on from
            _remove(self._folder)
            return
        self._journal, good = journal, 0
        while line := _line(journal.readline(_LONGEST_LINE)):
            try:
                if not self._taken(line):
                    break
            except (OSError, KeyError, TypeError, ValueError, AttributeError, MemoryError):
                break  # whatever a made-up line leads to
            good = journal.tell()
        journal.seek(good)
        journal.truncate()
        for name in [name for name, rows in self._files.items() if rows.rows < 0]:
            self._files.pop(name).file.close()
        if good == 0:
            self._close_all()
            _remove(self._folder)
            return
        for rows in self._files.values():
            rows.cut()
        self._recorded, self._noted = self.position, len(self.notes)
        if self.position:
            self._job.taken_up(self.position)

    def _taken(self, line: dict[str, Any]) -> bool:
        """Take up one line, if the blocks that it tells of are what was written."""
        position, notes, blocks = int(line["at"]), list(line["notes"]), dict(line["arrays"])
        if position < self.position or not all(_NAME.fullmatch(name) for name in blocks):
            return False
        for name, block in blocks.items():
            if name not in self._files:
                path, dim = self._folder / f"{name}.npy", block["dim"]
                if not (dim is None or (type(dim) is int and dim >= 0)):
                    return False
                self._files[name] = _Rows(path, dim, _plain_dtype(block["dtype"]))
                self._files[name].open()
            if not self._files[name].holds(int(block["rows"]), int(block["crc"])):
                return False
        for name, block in blocks.items():
            self._files[name].go_on(int(block["rows"]))
        self.position = position
        self.notes += notes
        return True

    def _close_all(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        for rows in self._files.values():
            rows.file.close()
        self._files.clear()


class _Rows:
    """One array's file: a header with room for the number of rows, then the rows."""

    file: IO[bytes]

    def __init__(self, path: Path, dim: int | None, dtype: np.dtype[Any]) -> None:
        self.path, self.dim, self.dtype = path, dim, dtype
        self.width = dtype.itemsize * (1 if dim is None else dim)
        self.rows = -1  # until something is known to be good
        self._recorded = 0
        self._crc = 0

    def begin(self) -> None:
        """Make the file anew."""
        self.open(create=True)
        self.file.truncate(0)
        self._start = self._header(0)
        self.rows = 0

    def open(self, *, create: bool = False) -> None:
        """Open the file that is there."""
        self.file = _opened(self.path, create=create)
        if not create:
            self._start = len(_header(0, self.dim, self.dtype))

    def _header(self, rows: int) -> int:
        # NumPy leaves room in the header for the number of rows to grow.
        header = _header(rows, self.dim, self.dtype)
        self.file.seek(0)
        self.file.write(header)
        return len(header)

    def set_aside(self, rows: int) -> None:
        """Let the file system keep room for all rows."""
        needed = self._start + rows * self.width
        if not hasattr(os, "posix_fallocate") or needed == 0:
            return  # macOS: a full disk shows when it is full
        self.file.flush()
        try:
            os.posix_fallocate(self.file.fileno(), 0, needed)
        except OSError as error:
            if error.errno in _NO_ROOM_KEPT:
                return
            with contextlib.suppress(OSError):
                self.file.truncate(self._end())
            free = shutil.disk_usage(self.path.parent).free
            raise ArtifactError(
                f"{self.path.parent}: {self.path.stem} takes {needed:,} bytes there, and "
                f"{free:,} are free: {error.strerror}"
            ) from error

    def append(self, rows: Array) -> None:
        """Write rows behind the others."""
        data = np.ascontiguousarray(rows, self.dtype)
        flat = data.reshape(-1).view(np.uint8).data
        self.file.write(flat)
        self._crc = zlib.crc32(flat, self._crc)
        self.rows += len(data)

    def sync(self) -> None:
        """Make sure that what was appended is on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def block(self) -> dict[str, Any]:
        """Describe what was appended since the last record."""
        return {"rows": self.rows, "crc": self._crc, "dim": self.dim, "dtype": self.dtype.str}

    def recorded(self) -> None:
        """Begin the next block."""
        self._recorded, self._crc = self.rows, 0

    def holds(self, rows: int, crc: int) -> bool:
        """Tell whether the next block is there, up to so many rows and with this checksum."""
        known = max(0, self.rows)
        left = (rows - known) * self.width
        if rows < known or self._start + rows * self.width > os.fstat(self.file.fileno()).st_size:
            return False
        self.file.seek(self._start + known * self.width)
        found = 0
        while left > 0:
            piece = self.file.read(min(left, _BLOCK))
            if not piece:
                return False
            found, left = zlib.crc32(piece, found), left - len(piece)
        return found == crc

    def go_on(self, rows: int) -> None:
        """Count rows that are known to be good."""
        self.rows = self._recorded = rows

    def cut(self) -> None:
        """Drop what lies behind the rows that are good."""
        self._header(0)
        self.file.truncate(self._end())
        self.file.seek(self._end())

    def finish(self) -> None:
        """Write the number of rows and close."""
        self.file.flush()
        self.file.truncate(self._end())
        self._header(self.rows)
        self.file.close()

    def _end(self) -> int:
        return self._start + max(0, self.rows) * self.width


def _header(rows: int, dim: int | None, dtype: np.dtype[Any]) -> bytes:
    import io

    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (rows,) if dim is None else (rows, dim),
    }
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _plain_dtype(text: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(text))
    if dtype.kind not in "biuf":
        raise ValueError(f"not a type of numbers: {dtype}")
    return dtype


def _opened(path: Path, *, create: bool = True) -> IO[bytes]:
    """Open a plain file to read and write; never one that a link leads to, or a pipe."""
    if not create and not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=1 << 20)


def _line(raw: bytes) -> dict[str, Any] | None:
    """Return what a line of the journal says, if it is whole."""
    try:
        if raw[-1:] != b"\n" or raw[8:9] != b" " or int(raw[:8], 16) != zlib.crc32(raw[9:-1]):
            return None
        said = json.loads(raw[9:-1])
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
