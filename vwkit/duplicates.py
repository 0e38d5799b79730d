"""Copies among the pictures of a run: cropped, scaled, turned, mirrored, saved anew.

Candidates come from the run's index, a few for each picture and for its mirror image; then keypoints
say whether one really is a copy of the other, and how it was made. So the cost grows with the number of
pictures, not with its square. See `vwkit.geometry.compare` for the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.builtin.aggregated import Aggregated
from vwkit.cache import Cache
from vwkit.errors import ImageError, UnsupportedError
from vwkit.extraction import image_key
from vwkit.featurizer import stacked
from vwkit.geometry import Transformation, align_many
from vwkit.geometry.comparing import (
    INLIERS,
    KEYPOINTS,
    OVERLAP,
    RATIO,
    SHARE,
    TOLERANCE,
    copy_of,
)
from vwkit.hashing import content_key
from vwkit.jobs import job
from vwkit.sparse import Sparse
from vwkit.stages import signature
from vwkit.stream import row_spans
from vwkit.types import Array, Features, Item

__all__ = ["CANDIDATES", "Group", "Pair", "find_duplicates"]

CANDIDATES = 20
REVISION = 1  # of what is kept in the cache
_AT_ONCE = 64
_IDENTICAL = -1  # stands for the inliers of files of the same bytes


@dataclass(frozen=True, eq=False)
class Pair:
    """Two pictures of which one is a copy of the other.

    Attributes
    ----------
    first, second : Item
    how : Transformation or None
        Takes the first to the second; None for files of the same bytes.
    """

    first: Item
    second: Item
    how: Transformation | None

    @property
    def words(self) -> str:
        """What was done to the first to get the second."""
        return "identical file" if self.how is None else self.how.words

    @property
    def turned(self) -> Pair:
        """The same from the second to the first."""
        return Pair(self.second, self.first, None if self.how is None else self.how.inverse)


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures that are copies of each other, directly or by way of others.

    Attributes
    ----------
    items : list of Item
        First the one that shows most of what is shared, in the most pixels (perhaps the original),
        then the others as `tree` reaches them.
    pairs : list of Pair
        All that were found, each from the earlier to the later one of `items`.
    tree : list of Pair
        How each item but the first came of one before it: ``tree[i].second`` is ``items[i + 1]``.
    """

    items: list[Item]
    pairs: list[Pair]
    tree: list[Pair]


def find_duplicates(
    run: Any,
    *,
    candidates: int = CANDIDATES,
    mirrored: bool = True,
    inliers: int = INLIERS,
    share: float = SHARE,
    overlap: float = OVERLAP,
    ratio: float = RATIO,
    tolerance: float = TOLERANCE,
    keypoints: int = KEYPOINTS,
) -> list[Group]:
    """Find groups of copies among the pictures of a run with local features and an index.

    What was found is kept in the cache: asking the same again costs nothing.

    Parameters
    ----------
    run : Run
    candidates : int
        Nearest pictures in the index that are compared with each picture, and as many with its
        mirror image.
    mirrored : bool
        Whether to look for mirrored copies.
    inliers, share, overlap, ratio, tolerance, keypoints
        See `vwkit.geometry.compare`.

    Returns
    -------
    list of Group
        Largest first, then in the order of their first pictures. A picture is in one group at most.

    Raises
    ------
    UnsupportedError
        The run has no index, or no keypoints.
    """
    run.path("index")
    if "keypoints" not in run.features.columns:
        raise UnsupportedError(
            f"{run.folder}: its features have no keypoints, by which pictures are compared; "
            "take a local featurizer that gives them, such as sift"
        )
    decision = {"inliers": inliers, "share": share, "overlap": overlap}
    matching = {"ratio": ratio, "tolerance": tolerance, "keypoints": keypoints}
    cache = Cache()
    try:
        hashes = _hashes(run.kept, cache)
        described = {
            "revision": REVISION,
            "pictures": content_key(hashes),
            "stages": [run.manifest["stages"][name]["key"] for name in run.manifest["stages"]],
            "rows": [item.row for item in run.kept],
            "candidates": candidates,
            "mirrored": mirrored,
            **decision,
            **matching,
        }
        key = content_key(described)
        found = cache.features(content_key("duplicates"), key)
        if found is None or set(found) != {"pairs", "matrices", "numbers"}:
            same = _representatives(hashes)
            mirror = _Mirror(run, cache, hashes) if mirrored else None
            proposed = _proposed(run, same, candidates, mirror)
            found = _verified(run, proposed, mirror, decision, matching)
            found = _with_identical(found, same)
            cache.keep_features(content_key("duplicates"), key, found)
    finally:
        cache.close()
    return _groups(_pairs(run.kept, found))


# Candidates --------------------------------------------------------------------------------------


def _hashes(items: Sequence[Item], cache: Cache) -> list[str]:
    """Return what tells files of the same bytes; a file that is gone is like no other."""
    return [
        f"gone {item.row}" if item.path is None or key.startswith("unreadable") else key
        for item, key in ((item, image_key(item, cache)) for item in items)
    ]


def _representatives(hashes: Sequence[str]) -> NDArray[np.int64]:
    """Return, for each picture, the place of the first one with the same bytes."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(name, i) for i, name in enumerate(hashes)], np.int64)


class _Mirror:
    """The features of mirrored pictures."""

    def __init__(self, run: Any, cache: Cache, hashes: Sequence[str]) -> None:
        whole = run.featurizer
        self._local = whole.local_ if isinstance(whole, Aggregated) else whole
        self._run, self._cache, self._hashes = run, cache, hashes
        self._key = content_key({"mirrored": signature(self._local, cache)})

    def of(self, place: int) -> Features | None:
        """Return what the mirrored picture gives, or None if its file is gone."""
        item = self._run.kept[place]
        known = self._local._mirrored(self._run.local_features(item.row))
        if known is not None:
            return known
        kept = self._cache.features(self._key, self._hashes[place])
        if kept is not None and {"vectors", "keypoints"} <= set(kept):
            return Features(kept["vectors"], kept["keypoints"], item.size)
        if item.path is None:
            return None
        try:
            found: Features = self._local.mirrored(item.path)
        except ImageError:
            return None
        if found.keypoints is None:
            return None
        self._cache.keep_features(
            self._key,
            self._hashes[place],
            {"vectors": found.vectors, "keypoints": found.keypoints},
        )
        return found


def _proposed(
    run: Any, same: NDArray[np.int64], count: int, mirror: _Mirror | None
) -> NDArray[np.int64]:
    """Return which pictures to compare: rows of place, whether mirrored, other place; sorted.

    The first place is the lower one. Of files with the same bytes only the first takes part.
    """
    kept = run.kept
    place_of = np.full(len(run.items), -1, np.int64)
    place_of[[item.row for item in kept]] = np.arange(len(kept))
    filled = np.diff(np.asarray(run.features.offsets)) > 0
    copies = np.bincount(same, minlength=len(kept))
    parts = [np.zeros((0, 3), np.int64)]
    for start, stop in row_spans(len(kept), _AT_ONCE):
        places = np.arange(start, stop)
        places = places[(same[places] == places) & filled[places]]
        if not len(places):
            continue
        wanted = int(count + copies[places].max())  # itself and its copies are no candidates
        for turned in (False, True) if mirror is not None else (False,):
            asked = list(_questions(run, places, mirror if turned else None))
            if not asked:
                continue
            found = _nearest(run, [vectors for _, vectors in asked], wanted)
            for (place, _), ids in zip(asked, found, strict=True):
                near = same[place_of[ids[ids >= 0]]]
                near = near[(near != place) & filled[near]]
                near = near[np.sort(np.unique(near, return_index=True)[1])][:count]
                low, high = np.minimum(near, place), np.maximum(near, place)
                parts.append(np.column_stack([low, np.full(len(near), int(turned)), high]))
        job().progress(stop, len(kept), "pictures looked up")
    return np.unique(np.concatenate(parts), axis=0)


def _questions(
    run: Any, places: NDArray[np.int64], mirror: _Mirror | None
) -> Iterator[tuple[int, Any]]:
    """Yield places with the vectors to ask the index with, as the featurizer gives them."""
    featurizer = run.featurizer
    for place in places.tolist():
        if mirror is None:
            yield place, run.query_vectors(run.kept[place].id)
            continue
        features = mirror.of(place)
        if features is not None and len(features.vectors):
            aggregated = isinstance(featurizer, Aggregated)
            yield place, featurizer.vector_of(features) if aggregated else features.vectors


def _nearest(run: Any, vectors: list[Any], wanted: int) -> list[NDArray[np.int64]]:
    if run.featurizer.local:
        return [run.nearest(one, wanted).ids[0] for one in vectors]
    together: Array | Sparse = stacked(vectors, run.featurizer.dim)
    return list(run.nearest(together, wanted).ids)


# Verification ------------------------------------------------------------------------------------


def _verified(
    run: Any,
    proposed: NDArray[np.int64],
    mirror: _Mirror | None,
    decision: dict[str, Any],
    matching: dict[str, Any],
) -> dict[str, Array]:
    """Compare the proposed pairs; return those that are copies."""
    rows = [item.row for item in run.kept]
    held: dict[tuple[int, int], Transformation] = {}
    starts = np.flatnonzero(np.r_[True, np.diff(proposed[:, 0] * 2 + proposed[:, 1]) != 0])
    for start, stop in zip(starts, [*starts[1:], len(proposed)], strict=True):
        if not len(proposed):
            break
        place, turned = proposed[start, :2].tolist()
        others = proposed[start:stop, 2].tolist()
        features = mirror.of(place) if turned and mirror else run.local_features(rows[place])
        if features is not None:
            found = align_many(
                features,
                (run.local_features(rows[other]) for other in others),
                quick=True,
                **matching,
            )
            for other, aligned in zip(others, found, strict=True):
                copy = copy_of(aligned, bool(turned), **decision)
                before = held.get((place, other))
                if copy is not None and (before is None or copy.inliers > before.inliers):
                    held[place, other] = copy
        job().progress(int(stop), len(proposed), "pairs compared")
    return {
        "pairs": np.array(list(held), np.int64).reshape(-1, 2),
        "matrices": np.array([one.matrix for one in held.values()]).reshape(-1, 2, 3),
        "numbers": np.array(
            [(one.inliers, one.matches, one.share) for one in held.values()], np.float64
        ).reshape(-1, 3),
    }


def _with_identical(found: dict[str, Array], same: NDArray[np.int64]) -> dict[str, Array]:
    """Add the pairs of files with the same bytes, each with the first of them."""
    later = np.flatnonzero(same != np.arange(len(same)))
    pairs = np.column_stack([same[later], later])
    whole = np.tile([[1.0, 0, 0], [0, 1, 0]], (len(later), 1, 1))
    numbers = np.tile([_IDENTICAL, 0.0, 1.0], (len(later), 1))
    return {
        "pairs": np.concatenate([found["pairs"], pairs]),
        "matrices": np.concatenate([found["matrices"], whole]),
        "numbers": np.concatenate([found["numbers"], numbers]),
    }


# Groups ------------------------------------------------------------------------------------------


def _pairs(kept: Sequence[Item], found: dict[str, Array]) -> list[Pair]:
    pairs = []
    for (a, b), matrix, numbers in zip(
        found["pairs"].tolist(), found["matrices"], found["numbers"].tolist(), strict=True
    ):
        first, second = kept[a], kept[b]
        how = None
        if numbers[0] != _IDENTICAL and first.size is not None and second.size is not None:
            inliers, matches = int(numbers[0]), int(numbers[1])
            how = Transformation(matrix, first.size, second.size, inliers, matches, numbers[2])
        pairs.append(Pair(first, second, how))
    return pairs


def _groups(pairs: Sequence[Pair]) -> list[Group]:
    near: dict[int, list[Pair]] = {}
    for pair in pairs:
        near.setdefault(pair.first.row, []).append(pair)
        near.setdefault(pair.second.row, []).append(pair.turned)
    for own in near.values():
        own.sort(key=_surest)
    groups, seen = [], set[int]()
    for row in sorted(near):
        if row not in seen:
            group = _grown(near, _original(near, _grown(near, row).items))
            seen.update(item.row for item in group.items)
            groups.append(group)
    return sorted(groups, key=lambda one: -len(one.items))


def _grown(near: dict[int, list[Pair]], row: int) -> Group:
    """Return the group of an item: breadth first, the surest pairs first."""
    items, tree = [near[row][0].first], list[Pair]()
    seen = {row}
    for one in items:  # grows
        for pair in near[one.row]:
            if pair.second.row not in seen:
                seen.add(pair.second.row)
                items.append(pair.second)
                tree.append(pair)
    rank = {item.row: i for i, item in enumerate(items)}
    pairs = [
        pair for item in items for pair in near[item.row] if rank[pair.second.row] > rank[item.row]
    ]
    return Group(items, pairs, tree)


def _original(near: dict[int, list[Pair]], items: Sequence[Item]) -> int:
    """Return the row of the picture that shows most of what is shared, in the most pixels.

    A turned copy has more pixels, but its corners are empty: of pictures that show about the same,
    the one that shows the least besides is taken; then the one that agrees best with the others (a
    blurred copy does less), then the first.
    """
    shown = {}
    for item in items:
        width, height = item.size or (0, 0)
        share = max(1.0 if one.how is None else one.how.kept for one in near[item.row])
        agreeing = sum(0 if one.how is None else one.how.inliers for one in near[item.row])
        shown[item.row] = share * width * height, round(share, 1), agreeing
    most = max(pixels for pixels, *_ in shown.values())
    return max(
        (row for row, (pixels, *_) in shown.items() if pixels >= 0.9 * most),
        key=lambda row: (*shown[row][1:], -row),
    )


def _surest(pair: Pair) -> tuple[float, int]:
    return -(np.inf if pair.how is None else pair.how.inliers), pair.second.row
