"""From a spec's `images:` to items: files that are listed, or pictures that are fetched.

Whatever is wrong with one record or one picture makes one skipped item with its reason; with
``on_error: stop`` it is an error that names the line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vwkit.downloading import Limits, fetch_pictures
from vwkit.errors import DataError
from vwkit.hashing import sample_rows
from vwkit.items import find_images, renumbered
from vwkit.jobs import job, use_job
from vwkit.metadata import Broken, format_of, kept_fields, look_up, plain, read_metadata, typed
from vwkit.spec import ImagesSource, UrlsSource
from vwkit.types import Item

__all__ = ["LONGEST_ID", "Collected", "collect", "described", "usable_id"]

#: A longer id is none.
LONGEST_ID = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_log = logging.getLogger("vwkit")


@dataclass
class Collected:
    """What a source gave.

    Attributes
    ----------
    items : list of Item
        In the source's order, rows from 0; skipped ones with their reason.
    counts : dict of str to int
        What a person wants to know: ``fetched`` pictures, ``repeated ids``.
    beside : dict of str to int
        What the source holds that is no item: ``ignored`` files, what was ``left out``.
    """

    items: list[Item]
    counts: dict[str, int] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)


def collect(
    source: ImagesSource | UrlsSource,
    seed: int,
    on_error: str = "skip",
    stage: str = "images",
    without: Collection[str] = (),
) -> Collected:
    """List or fetch the pictures of a source.

    Parameters
    ----------
    source : ImagesSource or UrlsSource
    seed : int
        Of the sample, where one is asked for.
    on_error : str
        ``skip`` or ``stop``.
    stage : str
        How progress is called.
    without : collection of str
        Absolute paths of files that are no input: what the run's outputs write.

    Raises
    ------
    DataError
        There is nothing to list, the metadata file cannot be used, or, with ``stop``, anything is wrong.
    """
    if isinstance(source, UrlsSource):
        with use_job(job().within(stage)):
            return _from_urls(source, seed, on_error)
    beside: dict[str, int] = {}
    items = find_images(
        source.path,
        source.pattern,
        limit=source.limit,
        sample=source.sample,
        seed=seed,
        without=without,
        beside=beside,
    )
    if source.metadata is None:
        return Collected(items, beside=beside)
    found = described(items, source, on_error)
    return replace(found, beside={**beside, **found.beside})


# URLs --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    line: int
    name: str | None
    url: str | None
    reason: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


def _from_urls(source: UrlsSource, seed: int, on_error: str) -> Collected:
    entries = list(_entries(source))
    if not entries:
        raise DataError(f"images: {source.urls} holds no record")
    beside: dict[str, int] = {}
    listed = len(entries)
    if source.sample is not None:
        entries = [entries[i] for i in sample_rows(len(entries), source.sample, seed)]
    if source.limit is not None:
        entries = entries[: source.limit]
    if len(entries) < listed:
        beside["left out"] = listed - len(entries)
    if format_of(source.urls) in ("csv", "tsv"):
        typed(_without(entry.metadata, source.id_field) for entry in entries)
    if on_error == "stop":
        for entry in entries:
            if entry.reason is not None:
                raise DataError(f"{source.urls}:{entry.line}: {entry.reason}")
    limits = Limits(
        parallel=source.parallel,
        per_host=source.per_host,
        timeout=source.timeout,
        max_bytes=source.max_bytes,
        retries=source.retries,
        retry=source.retry,
        allow_private=source.allow_private,
    )
    wanted = [entry.url for entry in entries if entry.url is not None]
    outcomes = fetch_pictures(wanted, source.cache, limits)
    names = _Names()
    items: list[Item] = []
    for entry in entries:
        place = f"{source.urls.name}:{entry.line}"
        path, reason = None, entry.reason
        if entry.url is not None:
            outcome = outcomes[entry.url]
            path, reason = outcome.path, outcome.reason
            if reason is not None:
                reason = f"{_shown(entry.url)}: {reason}"
                if on_error == "stop":
                    raise DataError(f"{source.urls}:{entry.line}: {reason}")
        name = entry.name or (place if entry.url is None else _shown(entry.url))
        given = names.unique(name)
        if given != name and on_error == "stop":
            raise DataError(f"{source.urls}:{entry.line}: the id {name!r} stands there twice")
        items.append(
            Item(
                len(items),
                given,
                None if path is None else str(path),
                status="ok" if path is not None else "skipped",
                reason=reason if reason is None else f"{place}: {reason}",
                metadata=entry.metadata,
            )
        )
    counts = {"fetched": sum(one.fresh and one.path is not None for one in outcomes.values())}
    if names.repeated:
        counts["repeated ids"] = names.repeated
    return Collected(items, counts, beside)


def _entries(source: UrlsSource) -> Iterator[_Entry]:
    columns = None
    if source.fields is not None:
        columns = [
            source.url_field,
            *([source.id_field] if source.id_field else []),
            *source.fields,
        ]
    enough = source.limit if source.sample is None else None
    current = job()
    for count, found in enumerate(read_metadata(source.urls, columns), 1):
        if isinstance(found, Broken):
            yield _Entry(found.line, None, None, found.reason)
        else:
            yield _entry(found.line, found.values, source)
        if count % 4096 == 0:
            current.progress(count, None, "records")
        if count == enough:
            return


def _entry(line: int, values: dict[str, Any], source: UrlsSource) -> _Entry:
    metadata = kept_fields(values, source.fields)
    name = None
    if source.id_field is not None:
        name = usable_id(look_up(values, source.id_field))
        if name is None:
            return _Entry(line, None, None, f"no usable {source.id_field}", metadata)
    url = look_up(values, source.url_field)
    if not isinstance(url, str) or not url.strip():
        return _Entry(line, name, None, f"no URL ({source.url_field})", metadata)
    if plain(url) != url:  # could be written nowhere, not even as the reason
        return _Entry(line, name, None, f"no URL ({source.url_field}): half a character", metadata)
    return _Entry(line, name, url.strip(), None, metadata)


_SECRET = re.compile(r"(?<=//)[^/?#]*@")


def _shown(url: str) -> str:
    """Leave out a name and password: reports are passed on."""
    return _SECRET.sub("…@", url)


def usable_id(value: Any) -> str | None:
    """Return a record's id as text, or None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value).strip()
    fine = 0 < len(text) <= LONGEST_ID and not _CONTROL.search(text)
    return text.encode("utf-8", "replace").decode() if fine else None


def _without(record: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return a view of a record's other fields that writes through."""
    return record if name not in record else _Others(record, str(name))


class _Others(dict[str, Any]):
    """A record without its id: that one stays text, whatever it looks like."""

    def __init__(self, record: dict[str, Any], name: str) -> None:
        super().__init__((key, value) for key, value in record.items() if key != name)
        self._record = record

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._record[key] = value


class _Names:
    """Gives each item a name of its own: the second ``B01`` is ``B01#2``."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self.repeated = 0

    def unique(self, name: str) -> str:
        count = self._seen.get(name, 0) + 1
        self._seen[name] = count
        if count == 1:
            return name
        self.repeated += 1
        while f"{name}#{count}" in self._seen:
            count += 1
        self._seen[name] = count
        given = f"{name}#{count}"
        self._seen[given] = 1
        return given


# Local files -------------------------------------------------------------------------------------


def described(
    items: list[Item], source: ImagesSource, on_error: str = "skip", *, some: bool = False
) -> Collected:
    """Give each picture the metadata and the id of the record that names its file.

    Parameters
    ----------
    items : list of Item
        Their ids are their paths below the source's folder.
    source : ImagesSource
        With its metadata file.
    on_error : str
        ``skip`` or ``stop``.
    some : bool
        Whether these are only some of the pictures that the file describes.

    Raises
    ------
    DataError
        No record names a picture, or, with ``stop``, one names none; neither with `some`.
    """
    path = Path(str(source.metadata))
    file_field = source.file_field or "file"
    by_name = _by_name(items)
    found: dict[int, tuple[dict[str, Any], str | None]] = {}
    left_out: list[str] = []
    columns = None
    if source.fields is not None:
        columns = [file_field, *([source.id_field] if source.id_field else []), *source.fields]
    for one in read_metadata(path, columns):
        reason: str | None
        if isinstance(one, Broken):
            reason = one.reason
        else:
            reason = None
            named = look_up(one.values, file_field)
            row = by_name.get(_plain_name(named)) if isinstance(named, str) else None
            name = (
                None if source.id_field is None else usable_id(look_up(one.values, source.id_field))
            )
            if not isinstance(named, str) or not named:
                reason = f"no file name ({file_field})"
            elif row is None:
                reason = "" if some else f"{named!r} is none of the pictures"
            elif row in found:
                reason = f"{named!r} was described before"
            elif source.id_field is not None and name is None:
                reason = f"no usable {source.id_field}"
            else:
                found[row] = kept_fields(one.values, source.fields), name
        if reason:
            if on_error == "stop":
                raise DataError(f"{path}:{one.line}: {reason}")
            left_out.append(f"{path.name}:{one.line}: {reason}")
    if not found and not some:
        first = f"; the first: {left_out[0]}" if left_out else ""
        raise DataError(f"{path}: no record names a picture of {source.path}{first}")
    if left_out:
        _log.info("%s records were left out; the first: %s", f"{len(left_out):,}", left_out[0])
    if format_of(path) in ("csv", "tsv"):
        typed(_without(metadata, source.id_field) for metadata, _ in found.values())
    names = _Names()
    made = []
    for item in items:
        metadata, name = found.get(item.row, ({}, None))
        made.append(replace(item, id=names.unique(name or item.id), metadata=metadata))
    counts = {"described": len(found)}
    if names.repeated:
        counts["repeated ids"] = names.repeated
    return Collected(
        renumbered(made), counts, {"records left out": len(left_out)} if left_out else {}
    )


def _by_name(items: list[Item]) -> dict[str, int]:
    """Return rows by path, and by the bare name of the file where only one has it."""
    bare: dict[str, int | None] = {}
    for item in items:
        last = PurePosixPath(item.id).name
        bare[last] = None if last in bare else item.row
    found = {name: row for name, row in bare.items() if row is not None}
    found.update((item.id, item.row) for item in items)
    return found


def _plain_name(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./")
