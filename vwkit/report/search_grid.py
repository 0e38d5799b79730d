"""One picture of a search: each query framed in red, beside it what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwkit.errors import DataError
from vwkit.image import MAX_PIXELS
from vwkit.jobs import job
from vwkit.report.pictures import fitted, open_picture
from vwkit.report.search_page import field_texts, items_of, query_name
from vwkit.report.searches import distance_text
from vwkit.types import Item, Matches

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw

__all__ = ["write_search_grid"]

_SIDE = 168
_GAP = 12
_FRAME = 4
_SIZE = 13
_LINE = 17
_COLUMNS = 7
_PAPER, _WELL = (255, 255, 255), (238, 239, 236)
_INK, _SOFT, _QUERY = (29, 35, 39), (90, 100, 107), (204, 51, 17)


def write_search_grid(
    run: Any,
    matches: Matches,
    queries: Sequence[Any],
    path: Path,
    *,
    fields: Sequence[str] = (),
    columns: int = _COLUMNS,
) -> None:
    """Write a search's results as a PNG.

    Parameters
    ----------
    run : Run
        The run that was searched.
    matches : Matches
        What `run.search(queries, k)` returned.
    queries : sequence of paths, item ids, PIL images or arrays
        One per row of `matches`.
    path : Path
        The PNG file.
    fields : sequence of str
        Metadata to write below each picture.
    columns : int
        Pictures beside each other, the query among them; more go on below.

    Raises
    ------
    DataError
        The numbers of queries and rows differ, or the picture would be too large.
    UnsupportedError
        The matches are no items: the run began from vectors.
    """
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    matched = items_of(matches, queries, "picture")
    known = {item.id: item for item in run.kept}
    found = [
        [
            (item, float(d))
            for item, d in zip(matched[i], matches.distances[i], strict=True)
            if item is not None
        ]
        for i in range(len(queries))
    ]
    most = max((len(one) for one in found), default=0)
    columns = max(2, min(columns, 1 + most))
    lines = [max(1, -(-len(one) // (columns - 1))) for one in found]
    tall = _SIDE + (2 + len(fields)) * _LINE + _GAP
    width = columns * (_SIDE + _GAP) + _GAP
    height = max(1, sum(lines)) * tall + _GAP
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: {len(queries)} queries with {most} results make {width} by {height} pixels; "
            "ask for fewer"
        )
    canvas = PIL.Image.new("RGB", (width, height), _PAPER)
    pen = PIL.ImageDraw.Draw(canvas)
    pen.font = PIL.ImageFont.load_default(_SIZE)
    top = _GAP
    for i, query in enumerate(queries):
        item = known.get(query) if isinstance(query, str) else None
        picture = open_picture(query if item is None else item.path)
        name = query_name(query, i)
        _cell(canvas, pen, _GAP, top, picture, ["query", name], framed=True)
        for place, (item, distance) in enumerate(found[i]):
            job().check()
            row, column = divmod(place, columns - 1)
            left = _GAP + (column + 1) * (_SIDE + _GAP)
            said = [f"{place + 1} · {distance_text(distance)}", item.id]
            said += [text for _, text in field_texts(item, fields)]
            _cell(canvas, pen, left, top + row * tall, _opened(item), said)
        top += lines[i] * tall
    canvas.save(path, "PNG", optimize=True)


def _opened(item: Item) -> Picture | None:
    return open_picture(None if item.path is None else Path(item.path))


def _cell(
    canvas: Picture,
    pen: ImageDraw,
    left: int,
    top: int,
    picture: Picture | None,
    texts: Sequence[str],
    *,
    framed: bool = False,
) -> None:
    """Draw one picture in its square and a few lines below it."""
    import PIL.ImageOps

    square = (left, top, left + _SIDE - 1, top + _SIDE - 1)
    pen.rectangle(square, fill=_WELL)
    if picture is None:
        if framed:
            pen.rectangle(square, outline=_QUERY, width=_FRAME)
        pen.text((left + 10, top + _SIDE // 2), "no picture", _SOFT)
    else:
        border = _FRAME if framed else 0
        small = PIL.ImageOps.expand(fitted(picture, _SIDE - 2 * border), border, _QUERY)
        x = left + (_SIDE - small.width) // 2
        canvas.paste(small, (x, top + (_SIDE - small.height) // 2))
    for number, text in enumerate(texts):
        colour = (_QUERY if framed else _INK) if number == 0 else _SOFT
        pen.text((left, top + _SIDE + 3 + number * _LINE), _short(pen, text), colour)


def _short(pen: ImageDraw, text: str) -> str:
    """Cut a text to the width of a picture."""
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())[:200]
    if pen.textlength(text) <= _SIDE:
        return text
    while text and pen.textlength(text + "…") > _SIDE:
        text = text[:-1]
    return text + "…"
