"""The page of one search: each query's picture beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vwkit.errors import DataError, UnsupportedError
from vwkit.report.markup import Html, tag
from vwkit.report.page import page
from vwkit.report.pictures import THUMBNAIL, Pictures, data_uri, fitted, open_picture
from vwkit.report.searches import result_list
from vwkit.report.sections import lead, title
from vwkit.types import Item, Matches

__all__ = ["write_search_page"]


def write_search_page(run: Any, matches: Matches, queries: Sequence[Any], path: Path) -> None:
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

    Raises
    ------
    DataError
        The numbers of queries and rows differ.
    UnsupportedError
        The matches are no items: the run began from vectors.
    """
    if len(queries) != len(matches):
        raise DataError(f"{len(queries)} queries for {len(matches)} rows of matches")
    if matches.items is None:
        raise UnsupportedError("these matches are rows of vectors; only images have a page")
    pictures = Pictures()
    known = {item.id: item for item in run.kept}
    rows = []
    for i, query in enumerate(queries):
        found = [
            (item.id, pictures.thumbnail(item), float(distance), None)
            for item, distance in zip(matches.items[i], matches.distances[i], strict=True)
            if item is not None
        ]
        name, uri = _asked(query, i, known, pictures)
        rows.append(tag("section", tag("h2", name), result_list(name, uri, found), class_="search"))
    said = f"{len(queries)} {'query' if len(queries) == 1 else 'queries'}: "
    text = page(f"Search in {title(run)}", Html(tag("span", said) + lead(run)), rows)
    path.write_text(text, encoding="utf-8")


def _asked(
    query: Any, i: int, known: dict[str, Item], pictures: Pictures
) -> tuple[str, str | None]:
    """Return a query's name and picture."""
    if isinstance(query, str) and query in known:
        return query, pictures.thumbnail(known[query])
    opened = open_picture(query)
    uri = None if opened is None else data_uri(fitted(opened, THUMBNAIL))
    named = isinstance(query, (str, Path))
    return (Path(query).name if named else f"query {i + 1}"), uri
