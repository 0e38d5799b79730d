"""Items added to a finished run, and removed from it, without building it again.

What changes (features, words, vectors, the index, ``items.jsonl``, the manifest) is written beside the run and
put in its place by the run folder's own journal: a kill at any moment leaves the old run or the new one.
Rows are never renumbered; a removed row stays in ``items.jsonl`` as ``removed`` and never comes back. What was
fitted (vocabulary, idf, transforms) stays as it was fitted.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import Artifact, open_artifact
from vwkit.base import load
from vwkit.builtin.aggregated import Aggregated
from vwkit.cache import Cache
from vwkit.collecting import LONGEST_ID, collect, described, usable_id
from vwkit.errors import DataError, RunError, SkippedItems, UnsupportedError
from vwkit.extraction import extract, image_key, noted
from vwkit.hashing import content_key, file_sha256
from vwkit.items import find_images, renumbered, write_items
from vwkit.jobs import job, use_job
from vwkit.lock import locked
from vwkit.metadata import is_metadata, plain
from vwkit.plugins import registry
from vwkit.regrown import write_regrown
from vwkit.run_folder import FILES, INNER, MANIFEST, commit, finish_commit
from vwkit.spec import ImagesSource, UrlsSource
from vwkit.stage_arrays import local_stream, one_per_item, write_aggregated, write_words
from vwkit.stages import signature
from vwkit.types import Item

__all__ = ["add_items", "remove_items"]

_NAMED = 5
_MARK = re.compile(r"(?:<!--changed-->.*?<!--/changed-->)?(?=<main)", re.DOTALL)


def add_items(
    run: Any,
    images: Any,
    *,
    ids: Sequence[str] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    existing: str = "refuse",
    on_error: str = "skip",
) -> list[Item]:
    """Add pictures to a run; see `vwkit.Run.add`."""
    if existing not in ("refuse", "skip"):
        raise UnsupportedError(f"existing must be refuse or skip; got {existing!r}")
    if on_error not in ("skip", "stop"):
        raise UnsupportedError(f"on_error must be skip or stop; got {on_error!r}")
    with _changing(run, "add", "supports_add") as change:
        items = _named(_listed(run, images, on_error), ids, metadata)
        items = _without_existing(run, items, existing)
        if not items:
            return []
        first = len(run.items)
        items = [replace(item, row=first + i) for i, item in enumerate(items)]
        items = change.extract(items, on_error)
        kept = [item for item in items if item.status == "ok"]
        if not kept and existing == "skip" and {item.id for item in items} <= _unusable(run):
            return []
        if not kept:
            raise DataError(
                f"none of {len(items)} could be used, so nothing was added; the first: "
                f"{items[0].id}: {items[0].reason}"
            )
        rows = np.array([item.row for item in kept], np.int64)
        with use_job(job().within("index")):
            vectors = run.indexable(one_per_item(change.added[change.last].arrays()))
            change.index(lambda index: index.add(vectors, rows))
            change.stages(None)
        change.commit([*run.items, *items], {"added": len(kept)})
    skipped = len(items) - len(kept)
    if skipped:
        said = next(item for item in items if item.status != "ok")
        warnings.warn(
            f"{skipped} of {len(items)} were skipped; the first: {said.id}: {said.reason}",
            SkippedItems,
            stacklevel=3,
        )
    return items


def remove_items(run: Any, ids: Any) -> list[Item]:
    """Remove items from a run; see `vwkit.Run.remove`."""
    if isinstance(ids, bytes) or not isinstance(ids, (str, Iterable)):
        raise UnsupportedError(f"ids of items: text or a list of them; got a {type(ids).__name__}")
    wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else [str(one) for one in ids]))
    with _changing(run, "remove", "supports_remove") as change:
        living = {item.id: item for item in run.kept}
        _refuse_unknown(run, [name for name in wanted if name not in living])
        if not wanted:
            return []
        gone = {living[name].row for name in wanted}
        if len(gone) == len(living):
            raise DataError(
                f"{run.folder}: these are all items of the run; an index cannot be empty. "
                "Remove the folder instead"
            )
        keep = np.array([item.row not in gone for item in run.kept])
        with use_job(job().within("index")):
            change.index(lambda index: index.remove(np.array(sorted(gone), np.int64)))
            change.stages(keep)
        items = [
            replace(item, status="removed") if item.row in gone else item for item in run.items
        ]
        change.commit(items, {"removed": len(gone)})
    return [items[row] for row in sorted(gone)]


# What is asked for -------------------------------------------------------------------------------


def _listed(run: Any, images: Any, on_error: str) -> list[Item]:
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
    named = [
        replace(item, id=Path(str(item.path)).relative_to(root).as_posix())
        if Path(str(item.path)).is_relative_to(root)
        else item
        for item in items
    ]
    if "metadata" not in source:
        return named
    known = {key: source.get(key) for key in ("file_field", "id_field")}
    fields = source.get("fields")
    described_by = ImagesSource(
        root,
        metadata=Path(str(source["metadata"])),
        fields=None if fields is None else tuple(fields),
        **known,
    )
    return described(renumbered(named), described_by, on_error, some=True).items


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


def _named(
    items: list[Item],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
) -> list[Item]:
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


def _without_existing(run: Any, items: list[Item], existing: str) -> list[Item]:
    living = {item.id: item.row for item in run.kept}
    # Of a metadata file that is added again and again: what was of no use then is told only once.
    known = _unusable(run) if existing == "skip" else set()
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


def _unusable(run: Any) -> set[str]:
    """Return the ids of what could not be used before."""
    return {item.id for item in run.items if item.status == "skipped"}


def _refuse_unknown(run: Any, names: list[str]) -> None:
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


# The change --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _changing(run: Any, verb: str, ability: str) -> Iterator[_Change]:
    """Hold the run's lock, look at the run as it is now, and clear up behind a change."""
    folder = Path(run.folder)
    inner = folder / INNER
    with locked(inner / "lock", folder):
        finish_commit(folder)
        if (inner / "state.json").is_file():
            raise RunError(
                f"{folder}: an interrupted `vwkit run` of this folder is not finished; go on with "
                f"--resume, or run it again, then {verb}"
            )
        run.reopen()
        _check(run, verb, ability)
        change = _Change(run, inner)
        try:
            yield change
        finally:
            change.close()
        run.reopen()


def _check(run: Any, verb: str, ability: str) -> None:
    if not run.has("index"):
        raise UnsupportedError(
            f"{run.folder}: this run has no index to {verb} items; its spec needs one"
        )
    if not run.has("featurizer"):
        raise UnsupportedError(f"{run.folder}: this run began from vectors; items are pictures")
    if run.featurizer.local:
        raise UnsupportedError(
            f"{run.folder}: its index holds single descriptors ({run.featurizer.name}), which are "
            f"built together; to {verb} items take one vector per picture, such as bag-of-words"
        )
    if run.has("clusterer"):
        raise UnsupportedError(
            f"{run.folder}: this run clustered its items all together; run its spec again"
        )
    index = run.index
    if not getattr(index, ability):
        raise UnsupportedError(
            f"{run.folder}: {index.name} cannot {verb} items; run the spec again, or with an index "
            f"that can: {', '.join(_able(ability))}"
        )


def _able(ability: str) -> list[str]:
    """Name the installed indexes that have an ability, or have it with some parameters."""
    import inspect

    known = registry()
    found = []
    for name in known.names("index"):
        value = inspect.getattr_static(known.entries["index", name][0].cls, ability, False)
        if value:
            found.append(f"{name} (with some parameters)" if isinstance(value, property) else name)
    return found


class _Change:
    """What is written beside a run until it takes the run's place.

    Attributes
    ----------
    added : dict of str to Artifact
        The stages of the new items, by the name of the run's stage that they belong to.
    last : str
        The stage whose vectors the transforms and the index receive.
    """

    def __init__(self, run: Any, inner: Path) -> None:
        self.run = run
        self.next = inner / "next"
        self.parts = inner / "parts"
        for folder in (self.next, self.parts):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.added: dict[str, Artifact] = {}
        self.last = "vectors" if run.has("vectors") else "features"
        self._hashes: list[str] = []
        self._removed: list[int] = []

    def close(self) -> None:
        """Remove what is left; after a commit nothing is."""
        shutil.rmtree(self.parts, ignore_errors=True)
        if not (self.next.parent / "commit.json").exists():
            shutil.rmtree(self.next, ignore_errors=True)

    def extract(self, items: list[Item], on_error: str) -> list[Item]:
        """Compute the features of new items, as the run did; note what was skipped."""
        run, featurizer = self.run, self.run.featurizer
        local = featurizer.local_ if isinstance(featurizer, Aggregated) else featurizer
        name = "featurizer.local" if isinstance(featurizer, Aggregated) else "features"
        cache = Cache()
        try:
            self._hashes = [image_key(item, cache) for item in items]
            key = content_key(signature(local, cache))
            with use_job(job().within(name)):
                extract(self.parts / name, local, key, items, self._hashes, cache, on_error)
        finally:
            cache.close()
        self.added[name] = open_artifact(self.parts / name)
        first = items[0].row
        relative = [replace(item, row=item.row - first) for item in items]
        items = [replace(item, row=item.row + first) for item in noted(relative, self.added[name])]
        kept = [item for item in items if item.status == "ok"]
        if isinstance(featurizer, Aggregated) and kept:
            stream = local_stream(self.added[name].arrays(), kept, local.kind)
            with use_job(job().within("featurizer.words")):
                write_words(self.parts / "featurizer.words", featurizer.words, stream)
            said = self.added["featurizer.words"] = open_artifact(self.parts / "featurizer.words")
            with use_job(job().within("vectors")):
                words = said.arrays()["words"]
                write_aggregated(self.parts / "vectors", featurizer, words, stream)
            self.added["vectors"] = open_artifact(self.parts / "vectors")
        if run.has("vectors") and kept and "vectors" not in self.added:
            raise UnsupportedError(
                f"{run.folder}: {featurizer.name} cannot make vectors of new items"
            )
        return items

    def index(self, change: Any) -> None:
        """Change a copy of the index."""
        index = load(self.run.path("index"))
        change(index)
        index.save(self.next / "index")
        self._indexed = len(index)

    def stages(self, keep: NDArray[np.bool_] | None) -> None:
        """Write the run's arrays anew: those of kept items, then those of added ones."""
        for name in ("features", "featurizer.local", "featurizer.words", "vectors"):
            if self.run.has(name):
                write_regrown(
                    open_artifact(self.run.path(name)), self.added.get(name), keep, self.next / name
                )

    def commit(self, items: list[Item], said: dict[str, int]) -> None:
        """Put the new parts in the place of the old."""
        job().check()
        run = self.run
        manifest = json.loads(json.dumps(run.manifest))
        write_items(self.next / "items.jsonl", items)
        manifest["items_sha256"] = file_sha256(self.next / "items.jsonl")
        counts = manifest["counts"]
        counts["items"] = len(items)
        for status, name in (("ok", "ok"), ("skipped", "skipped"), ("removed", "removed")):
            counts[name] = sum(item.status == status for item in items)
        counts["indexed"] = self._indexed
        if "descriptors" in counts and (self.next / "featurizer.local").is_dir():
            offsets = open_artifact(self.next / "featurizer.local").arrays()["offsets"]
            counts["descriptors"] = int(offsets[-1])
        for name, record in manifest["stages"].items():
            if (self.next / name).is_dir():
                what = [self._hashes, sorted(i.row for i in items if i.status == "removed")]
                record["key"] = content_key({"grown": record["key"], "by": what})
                record["from"] = "computed"
        records = manifest["stages"].values()
        manifest["fingerprint"] = content_key([record["key"] for record in records])
        # Scores were of the items as they were.
        manifest["scores"] = None
        manifest.setdefault("changes", []).append(said)
        self._mark_report(manifest["changes"])
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (self.next / MANIFEST).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(self.parts, ignore_errors=True)
        commit(Path(run.folder), [*manifest["stages"], *FILES])

    def _mark_report(self, changes: list[dict[str, int]]) -> None:
        """Say in the report that it is of the run as it was."""
        report = Path(self.run.folder) / "report.html"
        if not report.is_file():
            return
        added, removed = (sum(one.get(key, 0) for one in changes) for key in ("added", "removed"))
        note = (
            f"<!--changed--><section><p><b>Since this run was made, {added:,} items were added and "
            f"{removed:,} removed.</b> What follows may be of the time before; <code>vwkit report"
            "</code> writes it again.</p></section><!--/changed-->"
        )
        text = report.read_text(encoding="utf-8", errors="surrogateescape")
        (self.next / "report.html").write_text(
            _MARK.sub(lambda _: note, text, count=1), encoding="utf-8", errors="surrogateescape"
        )
