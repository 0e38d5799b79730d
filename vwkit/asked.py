"""Which items somebody wants to add to a run, or to take out of it: with their ids, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.collecting import LONGEST_ID, collect, described, usable_id
from vwkit.errors import DataError, UnsupportedError
from vwkit.items import find_images, renumbered
from vwkit.metadata import is_metadata, plain
from vwkit.spec import ImagesSource, UrlsSource
from vwkit.types import Item

__all__ = ["listed", "named", "refuse_unknown", "unusable", "without_existing"]

_NAMED = 5


def listed(run: Any, images: Any, on_error: str) -> list[Item]:
    """Turn files, folders and a metadata file into items with ids."""
    if isinstance(images, (str, Path)):
        images = [images]
    if not isinstance(images, Sequence):
        raise UnsupportedError(
            "pictures are added by their files: give a path, a folder, a metadata file, or a list "
            "of them"
        )
    source = dict(run.spec.get("images") or {})
    found: list[Item] = []
    for one in images:
        if not isinstance(one, (str, Path)):
            raise UnsupportedError(
                f"pictures are added by their files, so that the run can show them; got a "
                f"{type(one).__name__}"
            )
        path = _path(one)
        if path is None:
            raise _missing(one)
        if path.is_file() and is_metadata(path):
            found += _of_metadata(run, path, source, on_error)
        else:
            found += _of_files(path, source, on_error)
    return found


def _path(name: str | Path) -> Path | None:
    try:
        path = Path(name).expanduser().absolute()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a zero in it
        return None


def _of_files(path: Path, source: dict[str, Any], on_error: str) -> list[Item]:
    """List pictures; their ids and metadata are those that the run's own source would give them."""
    items = find_images(path)
    if "path" not in source:
        return items
    root = Path(str(source["path"]))
    below = [
        replace(item, id=Path(str(item.path)).relative_to(root).as_posix())
        if Path(str(item.path)).is_relative_to(root)
        else item
        for item in items
    ]
    if "metadata" not in source:
        return below
    known = {key: source.get(key) for key in ("file_field", "id_field")}
    fields = source.get("fields")
    described_by = ImagesSource(
        root,
        metadata=Path(str(source["metadata"])),
        fields=None if fields is None else tuple(fields),
        **known,
    )
    return described(renumbered(below), described_by, on_error, some=True).items


def _missing(path: Any) -> Exception:
    from vwkit.formats import MissingFileError

    return MissingFileError(f"{path}: no such file or folder")


def _of_metadata(run: Any, path: Path, source: dict[str, Any], on_error: str) -> list[Item]:
    if "urls" not in source:
        raise UnsupportedError(
            f"{path}: {run.folder} began from a folder of pictures; a metadata file of URLs can be "
            "added to a run that began from `images: {urls: …}`"
        )
    known = UrlsSource.__dataclass_fields__
    settings = {key: value for key, value in source.items() if key in known}
    settings.update(urls=path, cache=Path(str(source["cache"])), limit=None, sample=None)
    if settings.get("fields") is not None:
        settings["fields"] = tuple(settings["fields"])
    return collect(UrlsSource(**settings), 0, on_error).items


def named(
    items: list[Item],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
) -> list[Item]:
    """Give items the ids and the metadata that somebody named, one for each.

    Raises
    ------
    UnsupportedError, DataError
        They are no lists, of another length, or hold what cannot be kept.
    """
    for what, given in (("ids", ids), ("metadata", metadata)):
        if given is not None and (
            isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sized)
        ):
            raise UnsupportedError(
                f"{what}: a list, one for each picture; got a {type(given).__name__}"
            )
        if given is not None and len(given) != len(items):
            raise DataError(f"{what}: one for each picture, {len(items)}; got {len(given)}")
    if ids is not None:
        items = [replace(item, id=_id(name)) for item, name in zip(items, ids, strict=True)]
    if metadata is not None:
        items = [
            replace(item, metadata=_plain(one, item.id))
            for item, one in zip(items, metadata, strict=True)
        ]
    return items


def _id(name: Any) -> str:
    if isinstance(name, np.generic):
        name = name.item()
    found = usable_id(name)
    if found is None:
        raise DataError(
            f"ids: text of 1 to {LONGEST_ID} characters on one line, or a whole number; got "
            f"{ascii(name)[:80]}"
        )
    return found


def _plain(one: Any, name: str) -> dict[str, Any]:
    """Turn what somebody knows of a picture into plain data, as it is kept in ``items.jsonl``."""

    def of_numpy(value: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        if isinstance(value, (set, frozenset)):
            return sorted(value, key=str)
        raise TypeError(f"a {type(value).__name__} is none of them")

    why = f"it is a {type(one).__name__}, not a dict"
    if isinstance(one, Mapping):
        try:
            text = json.dumps(dict(one), default=of_numpy)
            found: dict[str, Any] = plain(json.loads(text, parse_constant=lambda _: None))
        except (TypeError, ValueError, RecursionError) as error:
            why = str(error)
        else:
            return found
    raise DataError(
        f"metadata of {name}: text, numbers, true, false, none, and lists and dicts of them; {why}"
    )


def without_existing(run: Any, items: list[Item], existing: str) -> list[Item]:
    """Return the items whose id no living item has; refuse the others, or leave them out.

    Raises
    ------
    DataError
        An id is there already (`existing` is ``refuse``), or is given twice.
    """
    living = {item.id: item.row for item in run.kept}
    # Of a metadata file that is added again and again: what was of no use then is told only once.
    known = unusable(run) if existing == "skip" else set()
    items = [item for item in items if item.status == "ok" or item.id not in known]
    fresh: list[Item] = []
    seen: set[str] = set()
    there, twice = [], []
    for item in items:
        if item.id in living:
            there.append(item.id)
        elif item.id in seen:
            twice.append(item.id)
        else:
            seen.add(item.id)
            fresh.append(item)
    if there and existing == "refuse":
        raise DataError(
            f"{run.folder}: {_few(there)} {'is an item' if len(there) == 1 else 'are items'} of this "
            "run already, so nothing was added; remove it first, give another id, or skip what is "
            "there (--skip-existing)"
        )
    if twice:
        raise DataError(f"{_few(twice)} is given twice, so nothing was added; ids are unique")
    return fresh


def unusable(run: Any) -> set[str]:
    """Return the ids of what could not be used before."""
    return {item.id for item in run.items if item.status == "skipped"}


def refuse_unknown(run: Any, names: list[str]) -> None:
    """Refuse ids that no living item has: with what became of the item, or the nearest id."""
    if not names:
        return
    gone = {item.id: item for item in run.items if item.status != "ok"}
    one = names[0]
    if one in gone:
        what = (
            "was removed before"
            if gone[one].status == "removed"
            else "was skipped, so it has no row"
        )
        raise DataError(f"{run.folder}: {one!r} {what}; nothing was removed")
    import difflib

    near = difflib.get_close_matches(one, [item.id for item in run.kept[:100_000]], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DataError(f"{run.folder}: no item {_few(names)}{hint}; nothing was removed")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
