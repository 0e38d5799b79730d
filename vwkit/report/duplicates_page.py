"""The page of near-duplicates: groups of pictures, and which part of one the other shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vwkit.report.markup import Html, join, tag
from vwkit.report.page import page, section, table
from vwkit.report.pictures import data_uri
from vwkit.report.sections import lead, title
from vwkit.report.thumbnails import small_pictures
from vwkit.types import Array, Item

__all__ = ["duplicates_page"]

# The shared part covers a picture up to this, and no outline is drawn on it.
_WHOLE = 0.97

_STYLE = """
.dup{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:18px 20px;
list-style:none;margin:14px 0 0;padding:0}
.dup li{min-width:0}
.two{display:grid;grid-template-columns:1fr 1fr;gap:6px}
.dup .first .two{grid-template-columns:1fr}
.seen{background:var(--well);border-radius:7px;overflow:hidden;display:flex;align-items:center;
justify-content:center;aspect-ratio:1}
.dup .first .seen{aspect-ratio:auto;height:min(196px,44vw)}
.seen svg{display:block;width:100%;height:100%}
.seen span{font-size:.8rem;color:var(--soft);padding:4px;text-align:center}
.out{fill:none;stroke:#fff;stroke-width:5;vector-effect:non-scaling-stroke}
.in{fill:none;stroke:#c31;stroke-width:2.5;vector-effect:non-scaling-stroke}
.top{fill:none;stroke:#c31;stroke-width:6;vector-effect:non-scaling-stroke}
.what{font-size:.92rem;line-height:1.35;margin:6px 1px 0;font-weight:600}
.dup .says{margin-top:2px}
.group{content-visibility:auto;contain-intrinsic-size:auto 480px}
.store{position:absolute;width:0;height:0;overflow:hidden}
"""


class _Shown:
    """Pictures of the page, each stored once and shown wherever it is wanted."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._sizes: dict[int, tuple[int, int] | None] = {}

    def store(self, items: Sequence[Item]) -> Html:
        """Return the pictures as definitions that `draw` refers to."""
        stored = []
        pictures = small_pictures(items, self.size)
        for item, picture in zip(items, pictures, strict=True):
            self._sizes[item.row] = None if picture is None else picture.size
            if picture is not None:
                width, height = picture.size
                stored.append(
                    tag(
                        "image",
                        id=f"p{item.row}",
                        width=width,
                        height=height,
                        href=data_uri(picture),
                    )
                )
        defs = tag("defs", *stored)
        return tag("svg", defs, class_="store", aria_hidden="true", width=0, height=0)

    def draw(self, item: Item, outline: Array | None = None) -> Html:
        """Return a picture with an outline (4, 2) in its own pixels; its upper side is thick."""
        size = self._sizes.get(item.row)
        if size is None or item.size is None:
            return tag("div", tag("span", "no picture"), class_="seen")
        drawn: list[Html] = [tag("use", href=f"#p{item.row}")]
        if outline is not None:
            points = (np.asarray(outline) + 0.5) * np.array(size) / np.array(item.size)
            whole = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            top = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[:2])
            drawn += [
                tag("polygon", points=whole, class_="out"),
                tag("polygon", points=whole, class_="in"),
                tag("polyline", points=top, class_="top"),
            ]
        # An inner one, which cuts off what lies outside of the picture.
        cut = tag("svg", *drawn, width=size[0], height=size[1])
        picture = tag(
            "svg", cut, viewBox=f"0 0 {size[0]} {size[1]}", role="img", aria_label=item.id
        )
        return tag("div", picture, class_="seen")


def duplicates_page(
    run: Any, groups: Sequence[Any], *, most: int, per_group: int, size: int
) -> str:
    """Return the page.

    Parameters
    ----------
    run : Run
    groups : sequence of vwkit.duplicates.Group
    most, per_group : int
        Groups on the page, and pictures of each, at most.
    size : int
        Longer side of each picture in pixels.
    """
    shown = groups[:most]
    parts = [_group(i, one, per_group, _Shown(size)) for i, one in enumerate(shown, 1)]
    if len(groups) > most:
        left = len(groups) - most
        parts.append(
            tag("p", f"… and {left:,} more groups, of {len(groups[most].items)} pictures at most. "
                "The outputs duplicates to a .csv or .json file have all of them.", class_="note")
        )  # fmt: skip
    return page(
        f"Near-duplicates in {title(run)}", lead(run), [_summary(run, groups), *parts], style=_STYLE
    )


def _summary(run: Any, groups: Sequence[Any]) -> Html:
    inside = sum(len(one.items) for one in groups)
    kept = len(run.kept)
    if not groups:
        return section("No duplicates", note=f"None of the {kept:,} pictures is a copy of another.")
    said = (
        f"{inside:,} of {kept:,} pictures are in {_count(len(groups), 'group')} of copies; "
        f"{inside - len(groups):,} of them could go if one of each is to stay. The first picture of a "
        "group is the one that shows most. To the left of each other one stands the picture that it "
        "was compared with. A red frame is where one lies in the other; its thick side is the upper one."
    )
    return section(_count(len(groups), "group"), note=said)


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}{plural}"


def _group(number: int, group: Any, most: int, shown: _Shown) -> Html:
    tree = group.tree[: most - 1]
    first = group.items[0]
    # What a picture is compared with may be one that is not listed itself; it stands before it.
    items = {item.row: item for item in [first, *(pair.second for pair in tree)]}
    store = shown.store(list(items.values()))
    listed = [_first(first, shown), *(_copy(pair, shown) for pair in tree)]
    left = len(group.tree) - len(tree)
    more = tag("p", f"… and {left:,} more.", class_="note") if left else None
    return tag(
        "section",
        store,
        tag("h2", f"{number} · {len(group.items):,} pictures"),
        tag("ul", *listed, class_="dup"),
        more,
        _others(group, most),
        class_="group",
    )


def _first(item: Item, shown: _Shown) -> Html:
    return tag(
        "li", tag("div", shown.draw(item), class_="two"), _named(item, "shows most"), class_="first"
    )


def _copy(pair: Any, shown: _Shown) -> Html:
    how = pair.how
    if how is None:
        outline = other = None
    else:
        inside = how.inverse
        outline = inside.outline if inside.covered < _WHOLE else None
        other = how.outline if how.covered < _WHOLE else None
        if outline is None and other is None and (how.mirrored or abs(how.angle) > 1):
            outline = inside.outline  # the whole: still worth seeing how it was turned
    pictures = tag(
        "div", shown.draw(pair.first, outline), shown.draw(pair.second, other), class_="two"
    )
    agrees = None if how is None else f"{how.inliers:,} places agree"
    of = join(["of ", tag("bdi", pair.first.id)])
    return tag("li", pictures, _named(pair.second, pair.words, agrees, of))


def _named(item: Item, what: str, *says: object) -> Html:
    size = None if item.size is None else "{} × {}".format(*item.size)
    told = join([one for one in (size, *says) if one is not None], " · ")
    return join(
        [
            tag("p", what, class_="what"),
            tag("p", tag("span", item.id, class_="id", title=item.id), told, class_="says"),
        ]
    )


def _others(group: Any, most: int) -> Html | None:
    """Return the pairs that are not shown as pictures."""
    drawn = {(pair.first.row, pair.second.row) for pair in group.tree[: most - 1]}
    rest = [pair for pair in group.pairs if (pair.first.row, pair.second.row) not in drawn]
    if not rest:
        return None
    lines = [
        (pair.first.id, pair.second.id, pair.words, "" if pair.how is None else pair.how.inliers)
        for pair in rest[: 4 * most]
    ]
    left = len(rest) - len(lines)
    listed = table("other pairs", ("picture", "copy", "how", "places"), lines, numbers=(3,))
    more = tag("p", f"… and {left:,} more.", class_="note") if left else None
    return tag("details", tag("summary", f"{_count(len(rest), 'more pair')}"), listed, more)
