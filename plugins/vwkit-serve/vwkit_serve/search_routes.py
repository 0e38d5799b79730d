"""Routes of searches, and of what a query and a result share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from vwkit.report.pictures import fitted
from vwkit.types import Item, Matches
from vwkit_serve import models
from vwkit_serve.errors import RequestError
from vwkit_serve.holder import Holder
from vwkit_serve.pictures import encoded, open_upload
from vwkit_serve.replies import Jpeg
from vwkit_serve.served import Served, Side, text
from vwkit_serve.shared import (
    BODY,
    ERRORS,
    JPEG,
    LARGEST,
    UPLOAD_ERRORS,
    Count,
    Id,
    Pixels,
    Where,
    known,
    reply,
)
from vwkit_serve.uploads import Uploads
from vwkit_serve.workers import Workers

__all__ = ["add_search"]

_LINES = 300


def add_search(
    app: FastAPI, holder: Holder, workers: Workers, uploads: Uploads, max_pixels: int
) -> None:
    """Add the routes below ``/api/search``, ``/api/matches`` and ``/api/preview``."""

    @app.get("/api/search", response_model=models.Result, responses=ERRORS, tags=["search"])
    async def search_by_item(item: Id, k: Count = 24, where: Where = "") -> Response:
        """Find the items most like one of the run's own, by its id."""
        served = await holder.get()
        served.need("search")
        asked = _usable(served, item)
        return reply(await workers.run(_search_item, served, asked, k, where))

    @app.post(
        "/api/search",
        response_model=models.Result,
        responses=UPLOAD_ERRORS,
        openapi_extra=BODY,
        tags=["search"],
    )
    async def search_by_picture(request: Request, k: Count = 24, where: Where = "") -> Response:
        """Find the items most like a picture. It stays in memory and is forgotten."""
        served = await holder.get()
        served.need("search")
        return await taken(request, lambda body: _search_upload(served, body, k, where, max_pixels))

    @app.get("/api/matches", response_model=models.Matched, responses=ERRORS, tags=["search"])
    async def matches_of_item(query: Id, row: Annotated[int, Query(ge=0, le=LARGEST)]) -> Response:
        """Say which points of two items belong together; `query` is an id."""
        served = await holder.get()
        served.need("matches")
        asked, other = _usable(served, query), _usable_row(served, row)
        return reply(await workers.run(lambda: _matched(served, served.side_of_item(asked), other)))

    @app.post(
        "/api/matches",
        response_model=models.Matched,
        responses=UPLOAD_ERRORS,
        openapi_extra=BODY,
        tags=["search"],
    )
    async def matches_of_picture(
        request: Request, row: Annotated[int, Query(ge=0, le=LARGEST)]
    ) -> Response:
        """Say which points of a picture and an item belong together."""
        served = await holder.get()
        served.need("matches")
        other = _usable_row(served, row)

        def work(body: bytes) -> dict[str, Any]:
            side = served.side_of_picture(body, lambda: open_upload(body, max_pixels))
            return _matched(served, side, other)

        return await taken(request, work)

    @app.post(
        "/api/preview",
        response_class=Response,
        responses={**JPEG, **UPLOAD_ERRORS},
        openapi_extra=BODY,
        tags=["search"],
    )
    async def preview(request: Request, size: Pixels = 1200) -> Response:
        """Return a picture as JPEG, for formats that browsers do not show (TIFF, PPM)."""

        def work(body: bytes) -> bytes:
            import PIL.Image

            return encoded(fitted(PIL.Image.fromarray(open_upload(body, max_pixels).rgb), size))

        made = await uploads.picture(request, lambda body: workers.run(work, body))
        if not isinstance(made, bytes):
            raise TypeError(made)
        return Jpeg(made, kept=False)

    async def taken(request: Request, work: Callable[[bytes], dict[str, Any]]) -> Response:
        return reply(await uploads.picture(request, lambda body: workers.run(work, body)))


def _usable(served: Served, name: str) -> Item:
    row = served.row_of(name)
    if row is None:
        raise RequestError(404, f"no item of this run is named {name[:200]!r}")
    return _usable_row(served, row)


def _usable_row(served: Served, row: int) -> Item:
    item = known(served, row)
    if item.status != "ok":
        raise RequestError(404, f"item {row} was skipped: {item.reason}")
    return item


def _search_item(served: Served, item: Item, k: int, where: str) -> dict[str, Any]:
    start = time.perf_counter()
    found = served.search_item(item, k, where)
    return _result(found, item, start)


def _search_upload(
    served: Served, body: bytes, k: int, where: str, max_pixels: int
) -> dict[str, Any]:
    start = time.perf_counter()
    found = served.search_picture(open_upload(body, max_pixels), k, where)
    return _result(found, None, start)


def _result(found: Matches, asked: Item | None, start: float) -> dict[str, Any]:
    listed = found.items[0] if found.items is not None else []
    results: list[dict[str, Any]] = []
    for item, distance in zip(listed, found.distances[0].tolist(), strict=True):
        if item is None or not math.isfinite(distance):
            continue
        width, height = item.size or (None, None)
        results.append(
            {
                "rank": len(results) + 1,
                "row": item.row,
                "id": text(item.id),
                "width": width,
                "height": height,
                "distance": max(0.0, distance) if abs(distance) < 1e-6 else distance,
                "itself": asked is not None and item.row == asked.row,
            }
        )
    return {
        "query": None if asked is None else text(asked.id),
        "milliseconds": round(1000 * (time.perf_counter() - start), 2),
        "results": results,
    }


def _matched(served: Served, query: Side, other: Item) -> dict[str, Any]:
    side = served.side_of_item(other)
    found = served.compare(query, side)
    best = found.pairs[:_LINES]
    first = np.asarray(query.points, np.float64)[best[:, 0], :2].round(2).tolist()
    second = np.asarray(side.points, np.float64)[best[:, 1], :2].round(2).tolist()
    words = [None] * len(best) if query.words is None else query.words[best[:, 0]].tolist()
    return {
        "width": query.size[0],
        "height": query.size[1],
        "item_width": side.size[0],
        "item_height": side.size[1],
        "points": len(query.points),
        "candidates": found.candidates,
        "total": len(found.pairs),
        "verified": found.verified,
        "by": "descriptors" if query.words is None else "words",
        "lines": [
            {"x1": a[0], "y1": a[1], "x2": b[0], "y2": b[1], "word": word}
            for a, b, word in zip(first, second, words, strict=True)
        ],
    }
