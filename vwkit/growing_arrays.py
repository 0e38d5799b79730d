"""Arrays of a stage that are written row by row, and that a killed process leaves to the next.

Rows go to files in the job's folder. Now and then they are synced, and a line is added to a journal
that says how far they are, with the checksum of every block of them and its own. Whoever comes next
reads the journal as far as its lines and the blocks they tell of are whole, and goes on from there: a
torn or flipped block costs what lies behind it.
"""

from __future__ import annotations

import contextlib
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
from vwkit.row_files import RowFile, opened, plain_dtype
from vwkit.run_folder import sync
from vwkit.types import Array

__all__ = ["GrowingArrays"]

FOLDER = "rows"
JOURNAL = "journal"

# Seconds of work that may be lost; records cost at most one twentieth of the time between them.
_EVERY = 1.0
_SHARE = 20
_LONGEST_LINE = 64 << 20
_NAME = re.compile(r"[a-z_]{1,64}")


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
        self._files: dict[str, RowFile] = {}
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
                held = self._files[name] = RowFile(
                    self._folder / f"{name}.npy", dim, np.dtype(dtype)
                )
                held.begin()
            elif held.dim != dim:
                raise ArtifactError(f"{held.path}: of another shape; remove {self._folder}")
            if rows is not None:
                held.set_aside(rows)

    def rows(self, name: str) -> int:
        """Return how many rows an array has by now; 0 if it was not begun."""
        return self._files[name].rows if name in self._files else 0

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
        self._clean = False  # if that fails, what was recorded before stays, and nothing else
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
            self._journal = opened(self._folder / JOURNAL)
            self._journal.seek(0, os.SEEK_END)
        self._journal.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        if self._recorded == 0:  # the names of the files, too
            for folder in (self._folder, self._folder.parent, self._folder.parent.parent):
                sync(folder)

    def _take_up(self) -> None:
        """Go on from the last record that is whole, with all before it."""
        try:
            journal = opened(self._folder / JOURNAL, create=False)
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
                found = RowFile(path, dim, plain_dtype(block["dtype"]))
                found.open()
                self._files[name] = found
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
