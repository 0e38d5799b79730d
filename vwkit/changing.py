"""A change of a finished run: written beside it, and put in its place by the run folder's journal.

A kill at any moment leaves the old run or the new one.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import Artifact, open_artifact
from vwkit.base import load
from vwkit.builtin.aggregated import Aggregated
from vwkit.cache import Cache
from vwkit.errors import RunError, UnsupportedError
from vwkit.extraction import extract, image_key, noted
from vwkit.hashing import content_key, file_sha256
from vwkit.items import write_items
from vwkit.jobs import job, use_job
from vwkit.lock import locked
from vwkit.observing.accounts import Account, account_of, check_same, close_accounts
from vwkit.observing.observer import note_skipped, observed, part
from vwkit.plugins import registry
from vwkit.regrown import write_regrown
from vwkit.run_folder import FILES, INNER, MANIFEST, commit, finish_commit
from vwkit.stage_arrays import local_stream, write_aggregated, write_words
from vwkit.stages import signature, size_of
from vwkit.types import Item

__all__ = ["Change", "changing", "check"]

_TO_COME = {
    "add": ["features", "featurizer.local", "featurizer.words", "vectors", "index"],
    "remove": ["index"],
    "compact": ["index"],
}
_MARK = re.compile(r"(?:<!--changed-->.*?<!--/changed-->)?(?=<main)", re.DOTALL)


@contextlib.contextmanager
def changing(run: Any, verb: str, ability: str | None) -> Iterator[Change]:
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
        check(run, verb, ability)
        with contextlib.ExitStack() as watching:
            change = Change(run, inner, verb, watching)
            try:
                yield change
            finally:
                change.close()
        run.reopen()


def check(run: Any, verb: str, ability: str | None) -> None:
    """Refuse a run of a kind that cannot change, or whose index has not the ability.

    Raises
    ------
    UnsupportedError
    """
    if not run.has("index"):
        raise UnsupportedError(
            f"{run.folder}: this run has no index, so there is nothing to {verb}; its spec needs one"
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
    if ability is not None and not getattr(index, ability):
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


class Change:
    """What is written beside a run until it takes the run's place.

    Attributes
    ----------
    added : dict of str to Artifact
        The stages of the new items, by the name of the run's stage that they belong to.
    last : str
        The stage whose vectors the transforms and the index receive.
    dead : int
        Removed vectors that the changed index still holds.
    """

    def __init__(self, run: Any, inner: Path, verb: str, watching: contextlib.ExitStack) -> None:
        self.run = run
        self._verb = verb
        self._inner = inner
        self._watching = watching
        self.next = inner / "next"
        self.parts = inner / "parts"
        for folder in (self.next, self.parts):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.added: dict[str, Artifact] = {}
        self.last = "vectors" if run.has("vectors") else "features"
        self._hashes: list[str] = []
        self.dead = 0

    def begin(self) -> None:
        """Keep log and progress from here on; what was refused before left nothing, not even a line."""
        watched = observed(self._inner, job(), verb=self._verb, to_come=_TO_COME[self._verb])
        self._watching.enter_context(use_job(self._watching.enter_context(watched)))

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
            with part(job(), name):
                extract(self.parts / name, local, key, items, self._hashes, cache, on_error)
        finally:
            cache.close()
        self.added[name] = open_artifact(self.parts / name)
        first = items[0].row
        relative = [replace(item, row=item.row - first) for item in items]
        items = [replace(item, row=item.row + first) for item in noted(relative, self.added[name])]
        note_skipped(job(), items)
        kept = [item for item in items if item.status == "ok"]
        if isinstance(featurizer, Aggregated) and kept:
            stream = local_stream(self.added[name].arrays(), kept, local.kind)
            with part(job(), "featurizer.words"):
                write_words(self.parts / "featurizer.words", featurizer.words, stream)
            said = self.added["featurizer.words"] = open_artifact(self.parts / "featurizer.words")
            with part(job(), "vectors"):
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
        work = copy.copy(job())
        work.folder = self.parts / "work"  # on the run's own disk
        with use_job(work):
            change(index)
            index.save(self.next / "index")
        self._indexed, self.dead, self._exact = len(index), index.dead, index.exact

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
        counts.pop("dead", None)
        if self.dead:
            counts["dead"] = self.dead
        if "descriptors" in counts and (self.next / "featurizer.local").is_dir():
            offsets = open_artifact(self.next / "featurizer.local").arrays()["offsets"]
            counts["descriptors"] = int(offsets[-1])
        for name, record in manifest["stages"].items():
            if (self.next / name).is_dir():
                what = [self._hashes, sorted(i.row for i in items if i.status == "removed")]
                record["key"] = content_key({"grown": record["key"], "by": what})
                record["from"] = "computed"
                record["bytes"] = size_of(self.next / name)
        records = manifest["stages"].values()
        manifest["fingerprint"] = content_key([record["key"] for record in records])
        manifest["accounts"] = self._accounts(manifest, items)
        if items is not run.items or not self._exact:
            manifest["scores"] = None  # they were of the items, and the index, as these were
        manifest.setdefault("changes", []).append(said)
        self._mark_report(manifest["changes"])
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (self.next / MANIFEST).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(self.parts, ignore_errors=True)
        commit(Path(run.folder), [*manifest["stages"], *FILES])

    def _accounts(self, manifest: dict[str, Any], items: list[Item]) -> dict[str, Any]:
        """Account for every item, as it lies in what is to take the run's place."""
        before = manifest.get("accounts") or {}
        accounts: dict[str, Account] = {}
        removed = sum(item.status == "removed" for item in items)
        kept = sum(item.status == "ok" for item in items)
        for name, said in before.get("stages", {}).items():
            folder = self.next / name
            if name == "index":
                check_same(name, "images", "items that are ok:", kept, "it holds", self._indexed)
                accounts[name] = Account("images", kept, self._indexed)
            elif name in ("features", "featurizer.local") and folder.is_dir():
                accounts[name] = account_of(name, folder, len(items), "images", removed)
            elif name in ("featurizer.words", "vectors") and folder.is_dir():
                accounts[name] = account_of(name, folder, unit=said["unit"])
        beside = {
            name: count
            for name, count in before.get("items", {}).items()
            if name in ("ignored", "left out", "records left out")
        }
        closed = close_accounts(accounts, items, beside)
        stages = {**before.get("stages", {}), **closed["stages"]}
        return {**before, "items": closed["items"], "stages": stages}

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
