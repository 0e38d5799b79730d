"""The page of a dendrogram: the tree, and a slider that cuts it anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from vwkit.outputs.drawing import COLOURS, STEPS, Drawing
from vwkit.outputs.tree import cut_sizes
from vwkit.report.clusters import images
from vwkit.report.markup import Html, join, tag
from vwkit.report.page import page, section
from vwkit.report.sections import lead, title
from vwkit.report.thumbnails import thumbnails

__all__ = ["dendrogram_page"]

_SIZES = 12
_WIDE = 1000
#: Lines of text beside a leaf's picture that is at least so high.
_TWO_LINES = 30
_PLAIN = 22


def dendrogram_page(run: Any, drawing: Drawing) -> str:
    """Return the page."""
    leaves = drawing.leaves
    row = max(_PLAIN, drawing.side + 4)
    tree = tag("div", _tree(drawing, row), tag("i", id="cut"), class_="tree")
    plot = tag("div", tree, _leaves(drawing), class_="cutter plot")
    lines = 2 if drawing.side >= _TWO_LINES else 1
    sizes = f"--row:{row}px;--side:{drawing.side}px;--lines:{lines}"
    note = None
    if leaves < drawing.tree.rows:
        note = (
            f"The last {leaves - 1:,} merges of {images(drawing.tree.rows)}: a leaf stands for all "
            "that were joined before."
        )
    noscript = tag("noscript", tag("p", "The slider needs JavaScript.", class_="note"))
    hint = None
    if "similarity" in type(run.clusterer).parameters():
        say = "To keep this cut, run the spec with "
        hint = tag("p", say, tag("code", id="command"), class_="said")
    body = [
        section("Tree", noscript, _controls(drawing, hint), plot, note=note),
        section("Images : clusters", _size_table(), tag("p", id="more-sizes", class_="note")),
        section("Clusters", tag("div", id="members")),
        tag("template", json.dumps(_data(drawing), separators=(",", ":")), id="tree-data"),
    ]
    return page(
        f"Dendrogram of {title(run)}",
        lead(run),
        [tag("div", *body, style=sizes)],
        style=_text("dendrogram.css"),
        script=_text("dendrogram.js"),
    )


def _text(name: str) -> str:
    return resources.files("vwkit.outputs").joinpath(name).read_text(encoding="utf-8")


def _controls(drawing: Drawing, hint: Html | None) -> Html:
    similarities, _ = _steps(drawing)
    said = join(["Similarity ", tag("b", id="value")])
    # Of a tree higher than similarity 0, the axis begins before the slider.
    before = f"margin-left:{100 * drawing.across((1 - similarities[0]) * drawing.full):.2f}%"
    slider = tag(
        "input",
        id="similarity",
        type="range",
        min=0,
        max=len(similarities) - 1,
        value=similarities.index(drawing.similarity),
    )
    return tag(
        "div",
        tag("label", said, for_="similarity"),
        tag("div", tag("div", slider, style=before), _axis(drawing)),
        tag("button", "as in the run", id="back", type="button"),
        tag("p", id="said", class_="said", role="status"),
        tag("p", id="divided", class_="said"),
        hint,
        class_="cutter bar",
        id="controls",
        hidden=True,
    )


def _axis(drawing: Drawing) -> Html:
    marks = (
        tag("span", text, style=f"left:{100 * drawing.across((1 - value) * drawing.full):.2f}%")
        for value, text in drawing.ticks()
    )
    return tag("div", *marks, class_="axis", aria_hidden="true")


def _size_table() -> Html:
    head = (tag("th", text, scope="col", class_="number") for text in ("Images", "Clusters"))
    inner = tag("table", tag("thead", tag("tr", *head)), tag("tbody"), id="sizes")
    return tag("div", inner, class_="scroll")


# The tree --------------------------------------------------------------------------------------


def _tree(drawing: Drawing, row: int) -> Html:
    """Draw each merge as three lines, told apart: to its parts, and the one that joins them."""
    top, high = drawing.top, row * drawing.leaves

    def x(node: int) -> str:
        return f"{_WIDE * drawing.across(top.heights[node]):.1f}"

    def y(node: int) -> str:
        return f"{row * (top.places[node] + 0.5):.1f}"

    drawn = []
    for i, (first, second) in enumerate(top.merges, drawing.leaves):
        drawn += [
            tag("path", d=f"M{x(i)} {y(first)}V{y(second)}", data_node=i),
            *(tag("path", d=f"M{x(i)} {y(part)}H{x(part)}", data_node=part) for part in (first, second)),
        ]  # fmt: skip
    for leaf in range(drawing.leaves):
        if drawing.count(leaf) > 1:
            middle, half = row * (leaf + 0.5), row * 0.3
            fan = f"M{x(leaf)} {middle:.1f}L{_WIDE} {middle - half:.1f}V{middle + half:.1f}Z"
            drawn.append(tag("path", d=fan, data_node=leaf, data_fan=True))
    return tag(
        "svg",
        tag("title", "The tree, from everything on the left to single images on the right"),
        *drawn,
        viewBox=f"0 0 {_WIDE} {high}",
        height=high,
        preserveAspectRatio="none",
        role="img",
    )


def _leaves(drawing: Drawing) -> Html:
    side = drawing.side
    uris = thumbnails(drawing.firsts(), 2 * side, square=True) if side else None
    listed = []
    for leaf in range(drawing.leaves):
        uri = next(uris) if uris is not None else None
        name = drawing.name(leaf)
        shown = None if uri is None else tag("img", src=uri, alt="")
        what = tag("span", name, class_="what", title=name)
        listed.append(
            tag("li", tag("span", tag("i", "–"), class_="badge"), shown, what, class_="leaf")
        )
    return tag("ol", *listed, class_="leaves")


# The data --------------------------------------------------------------------------------------


def _steps(drawing: Drawing) -> tuple[list[float], list[float]]:
    """Return the similarities of the slider, among them the run's own, and their heights."""
    low = max(0.0, drawing.low)
    values = {round(low + i / STEPS * (1 - low), drawing.digits) for i in range(STEPS + 1)}
    heights = {value: (1 - value) * drawing.full for value in values}
    heights[drawing.similarity] = drawing.cut
    similarities = sorted(heights)
    return similarities, [heights[one] for one in similarities]


def _data(drawing: Drawing) -> dict[str, Any]:
    similarities, cuts = _steps(drawing)
    groups = drawing.groups()
    return {
        "images": drawing.tree.rows,
        "min_size": drawing.min_size,
        "colours": len(COLOURS),
        "merges": drawing.top.merges,
        "heights": drawing.top.heights,
        "counts": [drawing.count(leaf) for leaf in range(drawing.leaves)],
        "labels": [-1 if group is None else group for group in groups[: drawing.leaves]],
        "similarities": similarities,
        "cuts": cuts,
        "digits": drawing.digits,
        "lines": [round(1 - drawing.across(cut), 5) for cut in cuts],
        "start": similarities.index(drawing.similarity),
        "sizes": [_short(*found) for found in cut_sizes(drawing.tree, cuts, drawing.min_size)],
    }


def _short(sizes: Sequence[tuple[int, int]], alone: int) -> dict[str, Any]:
    clusters = sum(count for _, count in sizes)
    shown = sizes[:_SIZES]
    rest = clusters - sum(count for _, count in shown)
    return {"sizes": shown, "clusters": clusters, "rest": rest, "alone": alone}
