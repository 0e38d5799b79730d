"""What became of each URL, on disk: a cache folder goes on where a killed fetch was.

The folder holds ``ledger.jsonl``, one line per outcome, the last one of a URL counts, and the pictures as
``ab/abcd….jpg``, named by the hash of their URL and what they are. A line is written after its picture is
in its place; a picture without a line, or with another size than its line says, is fetched again.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vwkit.errors import DataError

__all__ = ["Entry", "Ledger", "file_name"]

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{40}\.[a-z]{3,4}")
_LINE = 1 << 16
_REASON = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One outcome.

    Attributes
    ----------
    file : str or None
        The picture, below the cache folder.
    size : int
        Its bytes.
    reason : str or None
        Why there is none.
    temporary : bool
        Whether it may work the next time.
    runs : int
        In how many runs it failed, one after the other.
    """

    file: str | None = None
    size: int = 0
    reason: str | None = None
    temporary: bool = False
    runs: int = 0


def file_name(url: str) -> str:
    """Name a URL's picture, without its ending: nothing of the URL itself is in it."""
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:40]
    return f"{digest[:2]}/{digest}"


class Ledger:
    """The outcomes of a cache folder.

    Parameters
    ----------
    folder : Path
        Made if it is not there.

    Raises
    ------
    DataError
        It cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "ledger.jsonl"
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._read()
            if lines > 2 * len(self._entries) + 1000:
                self._rewrite()
            self._file = self._path.open("ab")
            if self._path.stat().st_size and not self._ends_well():
                self._file.write(b"\n")  # the last line was cut by a kill
        except OSError as error:
            raise DataError(
                f"{folder}: the cache of pictures cannot be used: {error.strerror or error}"
            ) from None

    def entry(self, url: str) -> Entry | None:
        """Return the last outcome of a URL."""
        return self._entries.get(url)

    def picture(self, url: str) -> Path | None:
        """Return a URL's picture, if it is there as it was written."""
        entry = self._entries.get(url)
        if entry is None or entry.file is None:
            return None
        path = self.folder / entry.file
        try:
            return path if path.stat().st_size == entry.size else None
        except OSError:
            return None

    def note(self, url: str, entry: Entry) -> None:
        """Write an outcome down; it is safe from a kill of this process when this returns."""
        line: dict[str, Any] = {"url": url}
        if entry.file is not None:
            line |= {"file": entry.file, "bytes": entry.size}
        else:
            line |= {"reason": entry.reason, "temporary": entry.temporary, "runs": entry.runs}
        text = json.dumps(line).encode("ascii") + b"\n"
        with self._lock:
            self._entries[url] = entry
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> int:
        lines = 0
        if not self._path.is_file():
            return 0
        with self._path.open("rb") as file:
            while line := file.readline(_LINE):
                lines += 1
                found = _entry(line)
                if found is not None:
                    self._entries[found[0]] = found[1]
        return lines

    def _ends_well(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"

    def _rewrite(self) -> None:
        """Leave out the lines that later ones have replaced."""
        part = self._path.with_suffix(".part")
        before, self._path = self._path, part
        part.unlink(missing_ok=True)
        self._file = part.open("ab")
        for url, entry in self._entries.items():
            self.note(url, entry)
        self._file.close()
        self._path = before
        part.replace(before)


def _entry(line: bytes) -> tuple[str, Entry] | None:
    """Read a line; a torn or strange one is as good as none."""
    try:
        said = json.loads(line)
        url = said["url"]
        if not isinstance(url, str):
            return None
        name = said.get("file")
        if name is not None:
            if not _NAME.fullmatch(name):
                return None
            return url, Entry(name, int(said["bytes"]))
        reason = str(said["reason"])[:_REASON]
        return url, Entry(None, 0, reason, bool(said["temporary"]), int(said["runs"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
