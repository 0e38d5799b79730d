"""The picture of a dendrogram, drawn with Pillow."""

from __future__ import annotations

import contextlib
import unicodedata
from typing import TYPE_CHECKING, Any

from vwkit.outputs.drawing import COLOURS, Drawing
from vwkit.report.thumbnails import small_pictures

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["canvas_size", "dendrogram_picture"]

_TREE, _NAMES, _MARGIN, _GAP = 660, 400, 28, 6
_TOP, _BOTTOM = 62, 22
_TEXT, _BAR = 15, 5
_PLAIN = 22  # height of a leaf without a picture
_PAPER, _INK, _SOFT, _GRID = "#ffffff", "#1d2327", "#5a646b", "#e3e6e2"
_LINE = "#8a949a"
_CUT = "#cc3311"
#: Looked for in the system's font folders, where a name is not ASCII.
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")


def canvas_size(leaves: int, side: int) -> tuple[int, int]:
    """Return width and height of the picture in pixels."""
    width = _MARGIN + _TREE + 2 * _GAP + side + _GAP + _NAMES + _MARGIN
    return width, _TOP + leaves * _step(side) + _BOTTOM


def _step(side: int) -> int:
    return max(_PLAIN, side + 4 if side else 0)


def dendrogram_picture(drawing: Drawing) -> Picture:
    """Draw the tree from its top on the left to its leaves on the right."""
    import PIL.Image
    import PIL.ImageDraw

    canvas = PIL.Image.new("RGB", canvas_size(drawing.leaves, drawing.side), _PAPER)
    pen = PIL.ImageDraw.Draw(canvas)
    names = [drawing.name(leaf).replace("…", "...") for leaf in range(drawing.leaves)]
    font = _font(plain=all(map(str.isascii, names)))
    _axis(pen, drawing, canvas.height - _BOTTOM + 8, font)
    groups = drawing.groups()
    # In the order of the leaves, so that neighbours differ.
    order = {group: i for i, group in enumerate(dict.fromkeys(g for g in groups if g is not None))}
    groups = [None if group is None else order[group] for group in groups]
    _lines(pen, drawing, groups)
    _cut(pen, drawing, canvas.height - _BOTTOM + 8, font)
    left = _MARGIN + _TREE + 2 * _GAP
    step = _step(drawing.side)
    if drawing.side:
        made = small_pictures(drawing.firsts(), drawing.side, square=True)
        for leaf, picture in enumerate(made):
            if picture is not None:
                canvas.paste(picture, (left, _TOP + leaf * step + (step - drawing.side) // 2))
        left += drawing.side + _GAP
    for leaf in range(drawing.leaves):
        top = _TOP + leaf * step
        if groups[leaf] is not None:  # the colour beside the name: as text it would be hard to read
            bar = [left, top + 2, left + _BAR - 1, top + step - 3]
            pen.rectangle(bar, _colour(groups[leaf], _PAPER))
        text = _fitting(font, names[leaf], canvas.width - _MARGIN - left - _BAR - _GAP)
        place = (left + _BAR + _GAP, top + step / 2)
        pen.text(place, text, _INK, font, anchor=_anchor(font, "lm"))
    return canvas


def _x(drawing: Drawing, height: float) -> int:
    return _MARGIN + round(_TREE * drawing.across(height))


def _y(drawing: Drawing, place: float) -> int:
    return round(_TOP + (place + 0.5) * _step(drawing.side))


def _colour(group: int | None, otherwise: str) -> str:
    return otherwise if group is None else COLOURS[group % len(COLOURS)]


def _lines(pen: Any, drawing: Drawing, groups: list[int | None]) -> None:
    top = drawing.top
    for i, parts in enumerate(top.merges, drawing.leaves):
        at = _x(drawing, top.heights[i])
        ends = [(_x(drawing, top.heights[part]), _y(drawing, top.places[part])) for part in parts]
        colour = _colour(groups[i], _LINE)
        pen.line([(at, ends[0][1]), (at, ends[1][1])], colour, 2)
        for (x, y), part in zip(ends, parts, strict=True):
            own = colour if groups[i] is not None else _colour(groups[part], _LINE)
            pen.line([(at, y), (x, y)], own, 2)
    for leaf in range(drawing.leaves):
        if drawing.count(leaf) > 1:  # a group that is drawn as one leaf begins at its own height
            x, y = _x(drawing, top.heights[leaf]), _y(drawing, leaf)
            corner = _MARGIN + _TREE, max(6, _step(drawing.side) // 4)
            shape = [(x, y), (corner[0], y - corner[1]), (corner[0], y + corner[1])]
            pen.polygon(shape, _colour(groups[leaf], _GRID), _colour(groups[leaf], _LINE))


def _axis(pen: Any, drawing: Drawing, bottom: int, font: Any) -> None:
    for similarity, text in drawing.ticks():
        x = _x(drawing, (1 - similarity) * drawing.full)
        pen.line([(x, _TOP - 8), (x, bottom)], _GRID, 1)
        pen.text((x, _TOP - 20), text, _SOFT, font, anchor=_anchor(font, "mm"))


def _cut(pen: Any, drawing: Drawing, bottom: int, font: Any) -> None:
    x = min(max(_x(drawing, drawing.cut), _MARGIN), _MARGIN + _TREE)
    for y in range(_TOP - 8, bottom, 10):
        pen.line([(x, y), (x, min(y + 5, bottom))], _CUT, 2)
    text = f"cut at similarity {drawing.similarity:.{drawing.digits}g}"
    half = font.getlength(text) / 2
    place = min(max(x, _MARGIN + half), _MARGIN + _TREE - half)
    pen.text((place, 18), text, _CUT, font, anchor=_anchor(font, "mm"))


def _font(*, plain: bool) -> Any:
    """Return Pillow's own font; it has ASCII only, so one of the system's for other names."""
    import PIL.ImageFont

    for name in () if plain else _FONTS:
        with contextlib.suppress(OSError, ImportError):
            return PIL.ImageFont.truetype(name, _TEXT)
    try:
        return PIL.ImageFont.load_default(_TEXT)
    except ImportError:  # a Pillow without FreeType: small and plain
        return PIL.ImageFont.load_default()


def _anchor(font: Any, wanted: str) -> str | None:
    """Return the anchor, where the font knows any."""
    return wanted if hasattr(font, "path") else None


def _fitting(font: Any, text: str, width: float) -> str:
    """Cut a text to a width in pixels; what cannot be drawn is replaced."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if not isinstance(getattr(font, "path", None), str):  # Pillow's own
        bare = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in bare if not unicodedata.combining(letter))
        text = text.encode("ascii", "replace").decode()
    if font.getlength(text) <= width:
        return text
    low, high = 0, min(len(text), int(width))
    while low < high:
        middle = (low + high + 1) // 2
        fits = font.getlength(text[:middle] + "...") <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low] + "..."
