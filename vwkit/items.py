"""The inputs of a run: which files, in which order, under which ids."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.artifact import MARKER
from vwkit.errors import ArtifactError, DataError
from vwkit.hashing import sample_rows
from vwkit.image import SUFFIXES
from vwkit.types import Item

__all__ = ["find_images", "read_items", "renumbered", "write_items"]


def find_images(
    path: Path,
    pattern: str | None = None,
    *,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    without: Collection[str] = (),
    beside: dict[str, int] | None = None,
) -> list[Item]:
    """List image files in the code-point order of their paths below `path`.

    Parameters
    ----------
    path : Path
        A folder (searched through, links to folders are not followed), or one file.
    pattern : str, optional
        Such as ``"**/*.jpg"``; by default every file with an image's ending.
    limit, sample : int, optional
        Only the first ones; only so many drawn at random, in order.
    without : collection of str
        Absolute paths of files in a folder that are no input: what an output writes there.
    beside : dict, optional
        Takes up how many files are no item: ``ignored`` (no image's ending, or hidden; without a
        pattern only) and ``left out`` (by `limit` or `sample`).

    Raises
    ------
    DataError
        There is no such path, or no image in it.
    """
    beside = {} if beside is None else beside
    if path.is_file():
        found = [(path.name, path)]
    elif path.is_dir():
        walked = _walk(path, pattern, beside)
        if without:
            walked = (one for one in walked if os.path.abspath(one[1]) not in without)
        found = sorted(walked, key=lambda one: one[0])
    else:
        raise DataError(f"images: no such file or folder: {path}")
    if not found:
        what = f"matching {pattern!r}" if pattern else f"ending in {', '.join(SUFFIXES)}"
        raise DataError(f"images: no file {what} in {path}")
    listed = len(found)
    if sample is not None:
        found = [found[i] for i in sample_rows(len(found), sample, seed)]
    if limit is not None:
        found = found[:limit]
    if len(found) < listed:
        beside["left out"] = listed - len(found)
    return [Item(row, name, str(file)) for row, (name, file) in enumerate(found)]


def _walk(root: Path, pattern: str | None, beside: dict[str, int]) -> Iterator[tuple[str, Path]]:
    for file in _listing(root, pattern):
        relative = file.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        if pattern is not None or (file.name.lower().endswith(SUFFIXES) and not hidden):
            yield _text(relative.as_posix()), file
        else:
            beside["ignored"] = beside.get("ignored", 0) + 1


def _listing(root: Path, pattern: str | None) -> Iterator[Path]:
    """Yield files; links to folders are not followed, so circles cannot trap the walk.

    What an output of ours wrote among the photos (folders of links, say) is no input.
    """
    if pattern is None:
        for folder, below, files in os.walk(root):
            below[:] = [name for name in below if not _made_here(os.path.join(folder, name))]
            yield from (Path(folder) / name for name in files if not _endless(folder, name))
        return
    made: dict[Path, bool] = {root: False}

    def within(folder: Path) -> bool:
        if folder not in made:
            made[folder] = _made_here(folder) or within(folder.parent)
        return made[folder]

    try:
        yield from (p for p in root.glob(pattern) if p.is_file() and not within(p.parent))
    except (NotImplementedError, ValueError, IndexError) as error:
        raise DataError(f"images: the pattern {pattern!r} cannot be used: {error}") from None


def _endless(folder: str, name: str) -> bool:
    """Tell a pipe, a socket or a device, which is no picture and may be waited for without end."""
    if not name.lower().endswith(SUFFIXES):
        return False  # no input without a pattern, so not worth the look
    try:
        mode = os.stat(os.path.join(folder, name)).st_mode
    except OSError:
        return False  # a link to nothing, say: it is skipped later, with its reason
    return not stat.S_ISREG(mode)


def _made_here(folder: str | Path) -> bool:
    return os.path.isfile(os.path.join(folder, MARKER))


def _text(name: str) -> str:
    """Make a file name that is not UTF-8 printable; it stays unique enough to be found."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def renumbered(items: Iterable[Item]) -> list[Item]:
    """Number items from 0 in their order."""
    return [replace(item, row=row) for row, item in enumerate(items)]


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write ``items.jsonl``: one line of JSON per item, in order."""
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            line = {key: value for key, value in asdict(item).items() if value not in (None, {})}
            file.write(json.dumps(line, ensure_ascii=True) + "\n")


def read_items(path: Path) -> list[Item]:
    """Read ``items.jsonl``.

    Raises
    ------
    ArtifactError
        A line is not an item.
    """
    items = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    items.append(_item(json.loads(line)))
                except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
                    raise ArtifactError(f"{path}:{number}: not an item; damaged") from None
                except RecursionError:
                    raise ArtifactError(f"{path}:{number}: nested too deeply; damaged") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from None
    return items


def _item(line: Any) -> Item:
    size = line.get("size")
    return Item(
        int(line["row"]),
        str(line["id"]),
        line.get("path"),
        (int(size[0]), int(size[1])) if size else None,
        str(line.get("status", "ok")),
        line.get("reason"),
        dict(line.get("metadata", {})),
    )


def ok_rows(items: Iterable[Item]) -> Any:
    """Return the rows of the items that were not skipped, (n,) int64."""
    return np.array([item.row for item in items if item.status == "ok"], np.int64)
