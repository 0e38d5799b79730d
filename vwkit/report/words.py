"""Words to look at: how often each occurs, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.metrics import squared_norms
from vwkit.report.markup import Html, tag
from vwkit.report.page import definitions, section
from vwkit.report.pictures import PATCH, Pictures, spread, window
from vwkit.report.svg import line_chart
from vwkit.run import Words
from vwkit.types import Array, Item

__all__ = [
    "groups_of",
    "patch_section",
    "vocabulary_size",
    "word_counts",
    "word_section",
    "words_of",
]

WORDS = 12
PATCHES = 8
#: Images that are opened to show words, at most.
IMAGES = 24
_CHUNK = 1 << 22
#: A word is typical if its center is near to this many images; a patch shows something from so
#: many pixels on.
_ALIKE = 4
_SHOWS = 26


def words_of(run: Any) -> Words | None:
    """Return the words of the descriptors, or None where there are none, or only colours."""
    if run.has("colours"):
        return None
    if not (run.has("featurizer.words") or (run.has("clusterer") and not groups_images(run))):
        return None
    found: Words = run.words
    return found


def groups_of(run: Any) -> Array | None:
    """Return the group of each image, or None where images were not grouped."""
    if not groups_images(run):
        return None
    labels: Array = run.arrays("labels")["labels"] if run.has("labels") else run.clusterer.labels
    return labels


def groups_images(run: Any) -> bool:
    """Tell whether the clusterer grouped whole images, not descriptors."""
    whole = run.has("clusterer") and run.has("featurizer")
    return whole and not run.featurizer.local


def word_counts(words: Array, k: int = 1) -> NDArray[np.int64]:
    """Return how often each word occurs, (k,) int64, k or more; -1 is none.

    A chunk at a time: words may be many more than fit in memory.
    """
    counts = np.zeros(k, np.int64)
    for start in range(0, len(words), _CHUNK):
        chunk = np.asarray(words[start : start + _CHUNK]).astype(np.int32)
        part = np.bincount(chunk[chunk >= 0], minlength=len(counts))
        part[: len(counts)] += counts
        counts = part
    return counts


def vocabulary_size(run: Any) -> int:
    """Return the number of words, used or not."""
    if run.has("featurizer.words"):
        return int(run.featurizer.word_count)
    return len(run.clusterer.centers) if run.clusterer.has_centers else 1


def word_section(run: Any, said: Words, counts: NDArray[np.int64]) -> Html:
    """Return how the words are used: numbers, and frequency by rank."""
    facts = _facts("words", counts, len(said.words))
    if len(said.offsets) == len(run.kept) + 1 and len(run.kept) > 1:
        facts.append(("words per image, median", f"{np.median(np.diff(said.offsets)):,.0f}"))
    chart = _rank_chart(counts, "How often each word occurs, by rank", "occurrences (log)")
    return section("Words", tag("div", chart, definitions(facts), class_="columns"))


def _facts(name: str, counts: NDArray[np.int64], rows: int) -> list[tuple[str, object]]:
    used = counts[counts > 0]
    facts: list[tuple[str, object]] = [
        (f"{name} in all", f"{len(counts):,}"),
        ("used", f"{len(used):,} ({_percent(len(used), len(counts))})"),
        ("empty", f"{len(counts) - len(used):,}"),
    ]
    if len(used):
        most = int(used.max())
        facts += [
            ("most frequent", f"{most:,} times ({_percent(most, rows)})"),
            ("median frequency", f"{np.median(used):,.0f}"),
        ]
    lost = rows - int(used.sum())
    return [*facts, ("in none", f"{lost:,}")] if lost else facts


def _rank_chart(counts: NDArray[np.int64], title: str, y_label: str) -> Html | None:
    ranked = np.sort(counts[counts > 0])[::-1]
    if len(ranked) == 0:
        return None
    points = [(i + 1.0, float(ranked[i])) for i in spread(len(ranked), 160, log=True)]
    drawn = line_chart(
        points, title=title, x_label="rank (log)", y_label=y_label, log=True,
        dots=len(points) <= 20,
    )  # fmt: skip
    return tag("figure", drawn)


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    return f"{share:.0f} %" if share in (0, 100) or 10 <= share <= 99 else f"{share:.2g} %"


# What words look like --------------------------------------------------------------------------


@dataclass
class _Sample:
    """The words of the images that are looked at.

    Attributes
    ----------
    items : list of Item
    words, image : (n,) int64
        Each word, and the place of its image in `items`.
    points : (n, 5) float32
    near : (n,) float64
        Squared distance of each descriptor to its word's center.
    clear : (n,) bool
        Whether its patch lies inside the picture and is not too small to show anything.
    """

    items: list[Item]
    words: NDArray[np.int64]
    image: NDArray[np.int64]
    points: NDArray[np.float32]
    near: NDArray[np.float64]
    clear: NDArray[np.bool_]


def patch_section(
    run: Any, said: Words, counts: NDArray[np.int64], pictures: Pictures, shown: Sequence[Item]
) -> Html | None:
    """Show a few words by patches cut out around their keypoints.

    Parameters
    ----------
    run : Run
    said : Words
    counts : (k,) int64
    pictures : Pictures
    shown : items
        Images that the page shows anyway; words are looked for there first.
    """
    keypoints = said.keypoints
    if keypoints is None:
        return None
    rows = _rows(run.kept, said.offsets, shown)
    if not rows:
        return None
    sample = _sampled(run, said, keypoints, rows)
    if len(sample.words) == 0:
        return None
    chosen = _chosen_words(sample, counts).tolist()
    places = [_places(sample, word) for word in chosen]
    made: dict[int, str] = {}
    for i, item in enumerate(sample.items):
        wanted = [place for found in places for place in found if sample.image[place] == i]
        if wanted:
            # An image that is gone gives no patch, and its places are left out below.
            made.update(zip(wanted, pictures.patches(item, sample.points[wanted]), strict=False))
    lines = []
    for word, found in zip(chosen, places, strict=True):
        patches = [(made[i], sample.items[sample.image[i]].id) for i in found if i in made]
        images = len(np.unique(sample.image[sample.words == word]))
        often = f"{int(counts[word]):,} times", f"in {images} of these images"
        lines.append(_line(f"Word {word}", often, patches))
    if not made:
        return None
    note = (
        f"{len(chosen)} words, from frequent to rare: the square around the keypoint, turned "
        f"upright, in {len(rows)} of {len(run.kept)} images."
    )
    return section("What the words look like", *lines, note=note)


def _line(name: str, says: Sequence[str], patches: Sequence[tuple[str, str]]) -> Html | None:
    if not patches:
        return None
    shown = [tag("img", src=uri, alt=f"{name} in {of}", title=of, width=PATCH, height=PATCH)
             for uri, of in patches]  # fmt: skip
    return tag(
        "div",
        tag("div", tag("h3", name), *(tag("p", text) for text in says)),
        tag("div", *shown, class_="patches"),
        class_="word",
    )


def _rows(kept: Sequence[Item], offsets: NDArray[np.int64], shown: Sequence[Item]) -> list[int]:
    """Choose the images to open, as places among the kept items: those shown, then a spread."""
    place = {item.row: i for i, item in enumerate(kept)}
    wanted = [place[item.row] for item in shown if item.row in place]
    wanted += spread(len(kept), IMAGES)
    full = [i for i in dict.fromkeys(wanted) if offsets[i + 1] > offsets[i] and kept[i].path]
    return sorted(full[:IMAGES])


def _sampled(run: Any, said: Words, keypoints: NDArray[np.float32], rows: Sequence[int]) -> _Sample:
    local = run.arrays("featurizer.local" if run.has("featurizer.local") else "features")["vectors"]
    aggregated = run.has("featurizer.words")
    model = run.featurizer.words if aggregated else run.clusterer
    centers = (model if aggregated else run.vocabulary).codebook[0] if _centered(model) else None
    items = [run.kept[row] for row in rows]
    words, points, near, clear = [], [], [], []
    for row, item in zip(rows, items, strict=True):
        span = slice(int(said.offsets[row]), int(said.offsets[row + 1]))
        own = np.asarray(said.words[span]).astype(np.int32)
        in_one = own >= 0  # a clusterer may put rows in no cluster
        words.append(own[in_one].astype(np.int64))
        points.append(np.asarray(keypoints[span])[in_one])
        clear.append(_clear(points[-1], item))
        vectors = np.asarray(local[span])[in_one]
        for transform in () if aggregated else run.transforms:
            vectors = transform.transform(vectors)
        near.append(
            np.zeros(len(vectors))
            if centers is None
            else squared_norms(vectors.astype(np.float32) - centers[words[-1]])
        )
    image = np.repeat(np.arange(len(rows)), [len(one) for one in words])
    return _Sample(
        items,
        np.concatenate(words),
        image,
        np.concatenate(points),
        np.concatenate(near),
        np.concatenate(clear),
    )


def _centered(model: Any) -> bool:
    return bool(getattr(model, "has_centers", True))


def _clear(points: NDArray[np.float32], item: Item) -> NDArray[np.bool_]:
    sides = window(points[:, 2])
    if item.size is None:
        return np.asarray(sides >= _SHOWS)
    half = sides[:, None] / 2
    inside = (points[:, :2] >= half) & (points[:, :2] <= np.array(item.size) - half)
    return np.asarray(inside.all(axis=1) & (sides >= _SHOWS))


def _chosen_words(sample: _Sample, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose words from frequent to rare: in each range of frequency, the one that looks alike.

    That is the word whose center is nearest to descriptors of several images.
    """
    usable = sample.clear if sample.clear.any() else np.ones_like(sample.clear)
    at = np.flatnonzero(usable)
    words, image, near = sample.words[at], sample.image[at], sample.near[at]
    order = np.lexsort((near, image, words))
    first = np.ones(len(order), bool)  # the nearest of each word in each image
    first[1:] = np.diff(words[order]) | np.diff(image[order])
    words, near = words[order][first], near[order][first]
    order = np.lexsort((near, words))
    words, near = words[order], near[order]
    found, start, images = np.unique(words, return_index=True, return_counts=True)
    enough = min(_ALIKE, int(images.max()))
    start, found = start[images >= enough], found[images >= enough]
    looks = near[start + enough - 1]
    ranked = np.lexsort((found, -counts[found]))
    parts = np.array_split(ranked, min(WORDS, len(ranked)))
    return found[[int(part[np.argmin(looks[part])]) for part in parts]]


def _places(sample: _Sample, word: int) -> list[int]:
    """Choose where to cut: the nearest to the center, clear ones first, a turn for each image."""
    at = np.flatnonzero(sample.words == word)
    image = sample.image[at]
    order = np.lexsort((at, sample.near[at], ~sample.clear[at], image))
    owner = image[order]
    turn = np.arange(len(at)) - np.searchsorted(owner, owner)
    blurred, near = ~sample.clear[at][order], sample.near[at][order]
    places: list[int] = at[order][np.lexsort((near, turn, blurred))[:PATCHES]].tolist()
    return places
