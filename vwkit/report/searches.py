"""Searches to look at: a query's picture and its nearest, right and wrong marked where known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vwkit.errors import DataError
from vwkit.evaluate.groups import read_groups
from vwkit.report.markup import Html, join, tag
from vwkit.report.page import section
from vwkit.report.pictures import Pictures, spread
from vwkit.report.svg import compact
from vwkit.types import Item

__all__ = ["Example", "find_examples", "picture", "result_list", "search_section"]

QUERIES = 6
RESULTS = 6

_SIGNS = {
    "right": tag("span", "✓", tag("i", " right"), class_="sign"),
    "wrong": tag("span", "✗", tag("i", " wrong"), class_="sign"),
}


@dataclass
class Example:
    """A query of the run's own items and what was found.

    Attributes
    ----------
    query : Item
    found : list of (Item, distance)
        Nearest first, without the query itself.
    kinds : dict of item id to str
        ``right`` or ``wrong``, where ground truth says so.
    score : float or None
        Average precision.
    note : str
        Why it was chosen.
    """

    query: Item
    found: list[tuple[Item, float]]
    kinds: dict[str, str] = field(default_factory=dict)
    score: float | None = None
    note: str = ""

    @property
    def items(self) -> list[Item]:
        """All that are shown."""
        return [self.query, *(item for item, _ in self.found)]


def find_examples(run: Any) -> list[Example]:
    """Search for a few of the run's own items, spread evenly; the best and worst scored are in.

    Returns
    -------
    list of Example
        Empty without an index of images. Empty too where the index holds an image's many
        descriptors: each example would be as many searches as the image has.
    """
    if not run.has("index") or not run.has("featurizer") or run.featurizer.local:
        return []
    kept = {item.id: item for item in run.kept}
    scores = {name: score for name, score in average_precisions(run).items() if name in kept}
    truth = _truth(run) if scores else {}
    examples = []
    for name, note in _chosen(list(kept), scores):
        query = kept[name]
        matches = run.search(query.id, RESULTS + 1)
        pairs = zip(matches.items[0], matches.distances[0], strict=True)
        found = [
            (item, float(d)) for item, d in pairs if item is not None and item.row != query.row
        ]
        positives, junk = truth.get(name, (set(), set()))
        kinds = {
            item.id: "right" if item.id in positives else "wrong"
            for item, _ in found
            if positives and item.id not in junk
        }
        examples.append(Example(query, found[:RESULTS], kinds, scores.get(name), note))
    return examples


def average_precisions(run: Any) -> dict[str, float]:
    """Return the average precision of each query that has one."""
    scores = run.scores or {}
    said = scores.get("average_precision")
    if not isinstance(said, dict):
        return {}
    return {str(k): float(v) for k, v in said.items() if isinstance(v, (int, float))}


def _chosen(names: list[str], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Choose queries and say why: best first, worst last, the others spread between."""
    if not scores:
        return [(names[i], "") for i in spread(len(names), QUERIES)]
    # Python's sort is stable: equal scores stay in the order of the ground truth.
    ranked = sorted(scores, key=lambda name: -scores[name])
    chosen = [(ranked[i], "") for i in spread(len(ranked), QUERIES)]
    if len(chosen) > 1:
        chosen[0] = (chosen[0][0], f"the best of {len(ranked)} queries")
        chosen[-1] = (chosen[-1][0], f"the worst of {len(ranked)} queries")
    return chosen


def _truth(run: Any) -> dict[str, tuple[set[str], set[str]]]:
    protocol = run.spec.get("evaluate") or {}
    if protocol.get("protocol") != "groups":
        return {}
    try:
        return read_groups(Path(protocol["groundtruth"]))
    except DataError:
        return {}  # gone or changed since; the scores are in the manifest


# Markup ----------------------------------------------------------------------------------------


def search_section(examples: Sequence[Example], pictures: Pictures) -> Html | None:
    """Return the examples as a picture grid."""
    if not examples:
        return None
    marked = any(example.kinds for example in examples)
    note = "Framed in red: the query. Beside it, the nearest other items, nearest first."
    if marked:
        note += " By the ground truth, ✓ is right and ✗ (dashed frame) is wrong."
    return section("Search", *(_example(one, pictures) for one in examples), note=note)


def _example(example: Example, pictures: Pictures) -> Html:
    said = [example.note] if example.note else []
    if example.score is not None:
        said.insert(0, f"average precision {example.score:.3f}")
    return tag(
        "div",
        tag("h3", example.query.id),
        tag("p", ", ".join(said), class_="note") if said else None,
        result_list(
            example.query.id,
            pictures.thumbnail(example.query),
            [
                (item.id, pictures.thumbnail(item), distance, example.kinds.get(item.id))
                for item, distance in example.found
            ],
        ),
        class_="query",
    )


def result_list(
    name: str,
    asked: str | None,
    found: Iterable[tuple[str, str | None, float, str | None]],
) -> Html:
    """Return a query's picture and its results as a list.

    Parameters
    ----------
    name : str
        The query.
    asked : str or None
        Its picture as a data URI.
    found : tuples of name, picture, distance, and ``right``, ``wrong`` or None
    """
    shown = [picture("asked", asked, name, tag("span", "query", class_="sign"), named=False)]
    for rank, (other, uri, distance, kind) in enumerate(found, 1):
        says = join([tag("b", rank), " · ", distance_text(distance), *_sign(kind)])
        shown.append(picture(kind, uri, other, says))
    if len(shown) == 1:
        shown.append(tag("li", tag("p", "Nothing was found.", class_="note")))
    return tag("ul", *shown, class_="pictures")


def _sign(kind: str | None) -> list[object]:
    return [" ", _SIGNS[kind]] if kind in _SIGNS else []


def distance_text(distance: float) -> str:
    """Write a distance: three decimals where it is small."""
    return f"{distance:.3f}" if abs(distance) < 100 else compact(distance)


def picture(
    kind: str | None, uri: str | None, name: str, says: object = None, *, named: bool = True
) -> Html:
    """Return one picture of a list, with a line and its name below."""
    inner = tag("span", "no picture") if uri is None else tag("img", src=uri, alt=name)
    shown = tag("span", name, class_="id", title=name) if named else None
    return tag(
        "li",
        tag("div", inner, class_="frame"),
        tag("p", says, shown, class_="says"),
        class_=kind,
    )
