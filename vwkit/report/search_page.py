"""The page of one search: each query's picture beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vwkit.errors import DataError, UnsupportedError
from vwkit.metadata import look_up
from vwkit.report.markup import Html, join, tag
from vwkit.report.page import page
from vwkit.report.pictures import THUMBNAIL, Pictures, data_uri, fitted, open_picture
from vwkit.report.searches import distance_text, picture
from vwkit.report.sections import lead, title
from vwkit.types import Item, Matches

__all__ = ["field_texts", "items_of", "query_name", "write_search_page"]

_LONGEST = 120
_STYLE = ".field{display:block;overflow-wrap:anywhere}.field b{font-weight:600}"


def items_of(
    matches: Matches, queries: Sequence[Any], what: str
) -> Sequence[Sequence[Item | None]]:
    """Return what was found for each query, to be shown.

    Raises
    ------
    DataError
        The matches are not those of the queries.
    UnsupportedError
        They are no images.
    """
    if len(queries) != len(matches):
        raise DataError(f"{len(queries)} queries for {len(matches)} rows of matches")
    if matches.items is None:
        raise UnsupportedError(f"these matches are rows of vectors; only images have a {what}")
    return matches.items


def write_search_page(
    run: Any,
    matches: Matches,
    queries: Sequence[Any],
    path: Path,
    *,
    fields: Sequence[str] = (),
    where: Sequence[str] = (),
) -> None:
    """Write a search's results as one HTML file.

    Parameters
    ----------
    run : Run
        The run that was searched.
    matches : Matches
        What `run.search(queries, k)` returned.
    queries : sequence of paths, item ids, PIL images or arrays
        One per row of `matches`.
    path : Path
        The HTML file.
    fields : sequence of str
        Metadata to show with each result.
    where : sequence of str
        What the search was narrowed to, to be told.

    Raises
    ------
    DataError
        The numbers of queries and rows differ.
    UnsupportedError
        The matches are no items: the run began from vectors.
    """
    found = items_of(matches, queries, "page")
    pictures = Pictures()
    known = {item.id: item for item in run.kept}
    rows = []
    for i, query in enumerate(queries):
        name, uri = _asked(query, i, known, pictures)
        sign = tag("span", "query", class_="sign")
        shown = [picture("asked", uri, name, sign, named=False)]
        for rank, (item, distance) in enumerate(
            zip(found[i], matches.distances[i], strict=True), 1
        ):
            if item is not None:
                shown.append(_result(rank, item, float(distance), pictures, fields))
        if len(shown) == 1:
            shown.append(tag("li", tag("p", "Nothing was found.", class_="note")))
        grid = tag("ul", *shown, class_="pictures")
        rows.append(tag("section", tag("h2", name), grid, class_="search"))
    said = f"{len(queries)} {'query' if len(queries) == 1 else 'queries'}: "
    narrowed = None
    if where:
        joined = join((tag("code", one) for one in where), between=" and ")
        narrowed = tag("p", "Only items where ", joined, class_="note")
    lead_text = Html(tag("span", said) + lead(run))
    text = page(f"Search in {title(run)}", lead_text, rows, top=narrowed, style=_STYLE)
    path.write_text(text, encoding="utf-8")


def _result(
    rank: int, item: Item, distance: float, pictures: Pictures, fields: Sequence[str]
) -> Html:
    said: list[object] = [tag("b", rank), " · ", distance_text(distance)]
    said.append(tag("span", item.id, class_="id", title=item.id))
    said += [
        tag("span", tag("b", name), " ", text, class_="field")
        for name, text in field_texts(item, fields)
    ]
    return picture(None, pictures.thumbnail(item), item.id, join(said), named=False)


def field_texts(item: Item, fields: Sequence[str]) -> list[tuple[str, str]]:
    """Return fields that an item has, as short texts on one line."""
    found = []
    for name in fields:
        value = look_up(item.metadata, name)
        if value is not None:
            text = " ".join(_plain(value).split())
            found.append((name, text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"))
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return str(value)


def query_name(query: Any, i: int) -> str:
    """Name a query: an item's id or a file's name as they are, others by their number."""
    return Path(query).name if isinstance(query, (str, Path)) else f"query {i + 1}"


def _asked(
    query: Any, i: int, known: dict[str, Item], pictures: Pictures
) -> tuple[str, str | None]:
    """Return a query's name and picture."""
    if isinstance(query, str) and query in known:
        return query, pictures.thumbnail(known[query])
    opened = open_picture(query)
    uri = None if opened is None else data_uri(fitted(opened, THUMBNAIL))
    return query_name(query, i), uri
