"""Clusters of photos as folders of links."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vwkit.around import Output
from vwkit.artifact import MARKER
from vwkit.base import Field, backend
from vwkit.errors import RunError, SkippedItems
from vwkit.jobs import job
from vwkit.outputs.files import new_folder
from vwkit.types import Item

__all__ = ["Folders", "link_names"]

#: In the folder beside our marker: what we put there, so that nothing else is ever removed.
_LIST_FILE = ".vwkit-links.json"
_LIST_LIMIT = 1 << 28
#: What common file systems allow a name, in bytes, and room for a number.
_LONGEST = 240
_NAMED = 5
#: What systems leave in folders that are looked at.
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
_ODD = re.compile(r"[\x00-\x1f\x7f/]")


@backend("folders")
class Folders(Output):
    """A folder per cluster, ``cluster_with_N/cluster_i/``, with a link to each of its N photos.

    The clusters of one size are numbered from 0, in the order of `Run.clusters`. Links are relative,
    so the folder and the photos can be moved together. A photo is called as its file; where two of
    one cluster have the same name, the folders they come from are put before it. A photo that is no
    longer there is named in a warning.

    What is written replaces an earlier folder of links, if there is nothing in it but these.
    """

    needs = ("clustering of images",)
    writes = "folder"

    link: Literal["symlink", "hard", "copy"] = Field(
        default="symlink",
        doc="symlink: relative links; hard: hard links, on the photos' file system only; copy: copies.",
    )
    unclustered: bool = Field(
        default=True, doc="Whether photos that are in no cluster go to not_clustered/."
    )

    def _write(self, run: Any, path: Path) -> None:
        folders = folder_names(run, self.unclustered)
        _refuse_photos_inside(path, run.kept)
        _refuse_what_is_not_ours(path)
        gone: list[str] = []
        written: dict[str, list[int]] = {}
        count = sum(len(items) for _, items in folders)
        done = 0
        with new_folder(path) as part:
            for name, items in folders:
                (part / name).mkdir(parents=True)
                for item, file in zip(items, link_names(items), strict=True):
                    place = f"{name}/{file}"
                    # A path that the system will not take belongs to no file either.
                    source = Path(item.path or "")
                    if item.path is None or not _is_file(source):
                        gone.append(item.id)
                        continue
                    with _linking(path / place, self.link):
                        _LINKS[self.link](source, part / place, path / name)
                        held = os.lstat(part / place)
                    # When a link was made tells nothing, and would differ between two equal runs.
                    known = [held.st_size, held.st_mtime_ns] if self.link == "copy" else []
                    written[place] = known
                done += len(items)
                job().check()
                job().progress(done, count, "photos")
            listing = {"link": self.link, "files": written}
            (part / _LIST_FILE).write_text(json.dumps(listing), encoding="utf-8")
        _warn(gone)


def folder_names(run: Any, unclustered: bool) -> list[tuple[str, Sequence[Item]]]:
    """Return the folder of each cluster, below the output's, and its items."""
    numbers: Counter[int] = Counter()
    found: list[tuple[str, Sequence[Item]]] = []
    for cluster in run.clusters:
        size = len(cluster.items)
        found.append((f"cluster_with_{size}/cluster_{numbers[size]}", cluster.items))
        numbers[size] += 1
    if unclustered and run.unclustered:
        found.append(("not_clustered", run.unclustered))
    return found


# Names -----------------------------------------------------------------------------------------


def link_names(items: Sequence[Item]) -> list[str]:
    """Return a file name for each item, all different on every common file system.

    Examples
    --------
    >>> from vwkit.types import Item
    >>> link_names([Item(0, "rome/1.jpg"), Item(1, "oslo/1.jpg"), Item(2, "oslo/2.jpg")])
    ['rome_1.jpg', 'oslo_1.jpg', '2.jpg']
    """
    plain = [_file_name(item, whole=False) for item in items]
    shared = Counter(map(_folded, plain))
    names = [
        _file_name(item, whole=True) if shared[_folded(name)] > 1 else name
        for item, name in zip(items, plain, strict=True)
    ]
    taken: set[str] = set()
    for i, name in enumerate(names):
        path, number = PurePosixPath(name), 2
        while _folded(names[i]) in taken:
            names[i] = f"{path.stem}_{number}{path.suffix}"
            number += 1
        taken.add(_folded(names[i]))
    return names


def _file_name(item: Item, *, whole: bool) -> str:
    """Make one name of an item's id: its last part, or all of it; with the file's ending."""
    parts = [part for part in item.id.split("/") if part not in ("", ".", "..")] or ["item"]
    name = _ODD.sub("_", "_".join(parts) if whole else parts[-1])
    # A lone surrogate stands for a byte that is no text; the system takes it, other programs may not.
    name = name.encode("utf-8", "backslashreplace").decode()
    suffix = PurePosixPath(item.path or "").suffix.encode("utf-8", "ignore").decode()
    if suffix and not name.lower().endswith(suffix.lower()):
        name += suffix  # an id of metadata need not have the ending of its file
    stem, ending = PurePosixPath(name).stem, PurePosixPath(name).suffix[:20]
    room = _LONGEST - len(ending.encode())
    return stem.encode()[-room:].decode("utf-8", "ignore") + ending


def _folded(name: str) -> str:
    """Write names alike that some file systems do not tell apart."""
    return unicodedata.normalize("NFC", name.casefold())


# Links -----------------------------------------------------------------------------------------


def _symlink(source: Path, target: Path, final: Path) -> None:
    # Of real folders: `..` of a folder that is itself a link leads elsewhere.
    real = os.path.join(os.path.realpath(source.parent), source.name)
    os.symlink(os.path.relpath(real, os.path.realpath(final)), target)


def _hard(source: Path, target: Path, final: Path) -> None:
    os.link(os.path.realpath(source), target)


def _copy(source: Path, target: Path, final: Path) -> None:
    shutil.copy2(source, target)


_LINKS: dict[str, Callable[[Path, Path, Path], None]] = {
    "symlink": _symlink,
    "hard": _hard,
    "copy": _copy,
}


@contextlib.contextmanager
def _linking(place: Path, link: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "" if link == "copy" else "; `link: copy` works everywhere"
        what = {"symlink": "linked", "hard": "hard-linked", "copy": "copied"}[link]
        raise RunError(f"{place}: cannot be {what}: {error.strerror or error}{hint}") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _warn(gone: Sequence[str]) -> None:
    if gone:
        named = ", ".join(gone[:_NAMED]) + (", …" if len(gone) > _NAMED else "")
        verb = "photo is" if len(gone) == 1 else "photos are"
        warnings.warn(
            f"{len(gone)} {verb} no longer there and got no link: {named}",
            SkippedItems,
            stacklevel=4,
        )


# What is never replaced ------------------------------------------------------------------------


def _refuse_photos_inside(path: Path, items: Sequence[Item]) -> None:
    """Refuse a place whose replacement would take the photos with it."""
    if not path.exists():
        return
    place = os.path.join(os.path.realpath(path), "")
    by_folder = {os.path.dirname(item.path): item.id for item in items if item.path}
    for folder, name in by_folder.items():
        if os.path.join(os.path.realpath(folder), "").startswith(place):
            raise RunError(f"{path}: holds the photo {name}; name another folder for the clusters")


def _refuse_what_is_not_ours(path: Path) -> None:
    """Refuse to replace a folder of ours in which there are files that we did not put there."""
    if not (path / MARKER).is_file():
        return  # `new_folder` judges it
    link, listed = _listing(path / _LIST_FILE)
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            place = Path(os.path.relpath(file, path)).as_posix()
            if place in (MARKER, _LIST_FILE) or name in _LITTER or os.path.islink(file):
                continue
            held = os.lstat(file)
            why = "which vwkit did not write"
            if link == "hard" and place in listed:
                if held.st_nlink > 1:
                    continue
                why = "the last link to a photo"
            elif link == "copy" and listed.get(place) == [held.st_size, held.st_mtime_ns]:
                continue
            raise RunError(
                f"{path}: holds {place}, {why}, and is not replaced; move that file away or name "
                "another folder"
            )


def _listing(path: Path) -> tuple[str, dict[str, Any]]:
    """Return how the photos of a folder were linked, and what was put there."""
    try:
        if path.is_symlink() or path.stat().st_size > _LIST_LIMIT:
            return "", {}
        read = json.loads(path.read_text(encoding="utf-8"))
        return str(read["link"]), dict(read["files"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "", {}  # then nothing in it is taken for ours
