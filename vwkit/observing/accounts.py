"""Every row accounted for: what a stage was given, what it holds, what was skipped and why.

What is compared was counted by different hands: the rows that a stage was given (by the stage or the
file before it), and the shapes of the arrays that lie in its folder now. Where they differ something was
lost without a word, and a run that loses rows must not end as if all were well.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.errors import BackendError
from vwkit.types import Item

__all__ = [
    "Account",
    "account_of",
    "check_same",
    "close_accounts",
    "held",
    "items_account",
    "reasons_of",
    "rows_given",
]

_REASONS = 20
_PLACE = re.compile(r"^\S+://\S+: |^'[^']*': ")


@dataclass(frozen=True)
class Account:
    """What became of what a stage was given.

    Attributes
    ----------
    unit : str
        What is counted: ``images``, ``descriptors``, ``rows``.
    given : int or None
        How many went in; None where that is not known.
    kept : int or None
        How many came out; None for a stage that only learns (a codebook, say).
    skipped : dict of str to int
        How many were left out, by reason.
    removed : int
        How many were taken out since (``vwkit remove``).
    rows : int or None
        Rows of vectors that the stage holds, where that is another number: descriptors of images.
    """

    unit: str = "rows"
    given: int | None = None
    kept: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    removed: int = 0
    rows: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return what the manifest says."""
        said: dict[str, Any] = {"unit": self.unit, "in": self.given, "out": self.kept}
        if self.skipped:
            said["skipped"] = dict(self.skipped)
        if self.removed:
            said["removed"] = self.removed
        if self.rows is not None:
            said["rows"] = self.rows
        return said


def rows_given(data: Any) -> int | None:
    """Return how many rows there are, without reading any; None where that is not known."""
    if data is None or isinstance(data, int):
        return data
    if hasattr(data, "chunks"):
        return None if data.rows is None else int(data.rows)  # a Stream
    shape = getattr(data, "shape", None)
    return None if shape is None else int(shape[0])


def account_of(
    stage: str, folder: Path, given: int | None = None, unit: str = "rows", removed: int = 0
) -> Account:
    """Count what a stage holds and compare it with what it was given.

    Parameters
    ----------
    stage : str
        Its name.
    folder : Path
        Its artifact, which has passed its checks.
    given : int or None
    unit : str
    removed : int
        How many of those given were taken out since.

    Raises
    ------
    BackendError
        The counts do not close.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    names = manifest.get("arrays", {})

    def array(name: str) -> Any:
        # Mapped: only the header is read, and the few numbers that are looked at.
        return np.load(folder / names[name], mmap_mode="r", allow_pickle=False)

    def rows_in(name: str) -> int | None:
        return int(array(name).shape[0]) if name in names else None

    if manifest.get("role") == "stage" and manifest.get("name") in ("features", "colours"):
        return _of_images(stage, manifest, array, rows_in, given, removed)
    kept = None
    if manifest.get("role") == "stage":
        kept = rows_in(str(manifest.get("name")))
        if kept is None and "indptr" in names:
            kept = len(array("indptr")) - 1
        if "offsets" in names and kept is not None:
            ends = int(array("offsets")[-1])
            check_same(stage, unit, "its items have", ends, "it holds", kept)
    elif manifest.get("role") == "clusterer":
        kept = rows_in("labels")
    if given is not None and kept is not None:
        check_same(stage, unit, "it was given", given, "it holds", kept)
    return Account(unit, given, kept)


def _of_images(
    stage: str, manifest: Any, array: Any, rows_in: Any, given: int | None, removed: int
) -> Account:
    """Account for images: each has its rows, or a reason."""
    offsets = array("offsets")
    kept, rows = len(offsets) - 1, int(offsets[-1])
    listed = rows_in("sizes")
    skipped = {int(row): str(reason) for row, reason in manifest.get("skipped", [])}
    if given is not None:
        check_same(stage, "images", "it was given", given, "it tells of", int(listed))
    told = kept + len(skipped) + removed
    check_same(stage, "images", "it was given", int(listed), "it used or skipped", told)
    for name in ("vectors", "keypoints", "pixels"):
        held = rows_in(name)
        if held is not None:
            check_same(stage, "rows", "its images have", rows, f"{name} holds", held)
    if rows_in("indptr") is not None:
        check_same(stage, "rows", "its images have", rows, "it holds", rows_in("indptr") - 1)
    if rows_in("counts") is not None:
        counted = int(array("counts").sum())
        check_same(stage, "pixels", "its images have", rows, "its colours count", counted)
    return Account("images", listed, kept, reasons_of(skipped.values()), removed, rows)


def check_same(
    stage: str, unit: str, whose: str, expected: int | None, others: str, found: int | None
) -> None:
    """Refuse two counts that should be one; what is not known is not compared.

    Raises
    ------
    BackendError
    """
    if expected is None or found is None or expected == found:
        return
    missing = expected - found
    what = f"{missing:,} were lost" if missing > 0 else f"{-missing:,} came from nowhere"
    raise BackendError(
        f"{stage}: {whose} {expected:,} {unit} and {others} {found:,}: {what}, and nothing says why. "
        "The run is not finished; what made this stage is at fault"
    )


def reasons_of(reasons: Iterable[str]) -> dict[str, int]:
    """Count reasons, the most frequent first; what names one item only is left out of them."""
    counts = Counter(_PLACE.sub("", reason) for reason in reasons)
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    said = dict(ranked[:_REASONS])
    if len(ranked) > _REASONS:
        said["other reasons"] = sum(count for _, count in ranked[_REASONS:])
    return said


def close_accounts(
    accounts: Mapping[str, Account],
    items: Iterable[Item],
    beside: Mapping[str, int | None],
    rows: int | None = None,
) -> dict[str, Any]:
    """Compare the stages of a run with each other and with its items; return all accounts.

    Parameters
    ----------
    accounts : dict of str to Account
        By stage.
    items : iterable of Item
        As they were read back from the run's folder.
    beside : dict of str to int
        See `items_account`.
    rows : int, optional
        Of a run that began from vectors: how many there are.

    Returns
    -------
    dict
        ``items`` and ``stages``, for the manifest.

    Raises
    ------
    BackendError
        They do not close; the text names the stage.
    """
    said = items_account(items, beside)
    ok = int(said["ok"])
    for name in ("featurizer.local", "features", "colours"):
        if name in accounts:
            kept = accounts[name].kept
            check_same(name, "images", "items that are ok:", ok, "it holds", kept)
            rows = accounts[name].rows
    if "featurizer.words" in accounts:
        words = accounts["featurizer.words"].kept
        check_same("featurizer.words", "descriptors", "there are", rows, "it holds", words)
    if "vectors" in accounts:
        rows = accounts["vectors"].kept
        check_same("vectors", "images", "items that are ok:", ok, "it holds", rows)
    for name in ("codes", "labels", "index"):
        if name in accounts:
            check_same(name, "rows", "there are", rows, "it holds", accounts[name].kept)
    return {"items": said, "stages": {name: one.plain() for name, one in accounts.items()}}


def held(run: Any, *stages: str) -> int | None:
    """Return how many rows the first of some stages that a run has holds, by its accounts.

    None for a run that was made before there were any.
    """
    said = (run.manifest.get("accounts") or {}).get("stages", {})
    for stage in stages:
        if stage in said:
            count = said[stage].get("rows", said[stage].get("out"))
            return None if count is None else int(count)
    return None


def items_account(items: Iterable[Item], source: Mapping[str, int | None]) -> dict[str, Any]:
    """Account for the inputs of a run.

    Parameters
    ----------
    items : iterable of Item
    source : dict
        What else is known: ``ignored`` files, which are no pictures, and ``left out`` ones, which
        `limit` or `sample` did not take.

    Raises
    ------
    BackendError
        A status that is none.
    """
    counts: Counter[str] = Counter()
    reasons = []
    for item in items:
        counts[item.status] += 1
        if item.status == "skipped":
            reasons.append(item.reason or "no reason was given")
    listed = sum(counts.values())
    known = counts["ok"] + counts["skipped"] + counts["removed"]
    check_same("items", "items", "there are", listed, "ok, skipped or removed are", known)
    said: dict[str, Any] = {"listed": listed, "ok": counts["ok"]}
    said["skipped"] = reasons_of(reasons)
    if counts["removed"]:
        said["removed"] = counts["removed"]
    said.update({name: count for name, count in source.items() if count is not None})
    return said
