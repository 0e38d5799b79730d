"""The routes of the application."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import vwkit
from vwkit.errors import VwkitError
from vwkit.types import Item, Matches
from vwkit_serve import models
from vwkit_serve.errors import RequestError, status_of
from vwkit_serve.guard import Guard, Hosts
from vwkit_serve.holder import Holder
from vwkit_serve.pages import add_pages
from vwkit_serve.pictures import encoded, is_there, open_upload
from vwkit_serve.replies import Jpeg, Json, error_reply
from vwkit_serve.served import Served, Side, plain, text
from vwkit_serve.uploads import Uploads
from vwkit_serve.workers import Workers

if TYPE_CHECKING:
    from vwkit_serve import Web

__all__ = ["application"]

_log = logging.getLogger("vwkit.serve")
_LARGEST = 2**31 - 1
_LINES = 300
_EXAMPLES = 24

Offset = Annotated[int, Query(ge=0, le=_LARGEST)]
Limit = Annotated[int, Query(ge=1, le=200)]
Row = Annotated[int, Path(ge=0, le=_LARGEST, description="Number of the item.")]
Count = Annotated[int, Query(ge=1, le=200, description="Results wanted.")]
Where = Annotated[
    str,
    Query(
        max_length=2000, description="Only items whose metadata fulfil this, such as `price < 20`."
    ),
]
Id = Annotated[str, Query(max_length=4096)]
Side_ = Annotated[int, Query(ge=16, le=2048, description="Pixels of the longer side, at most.")]

_ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": models.Error, "description": "There is no such thing in this run."},
    422: {"model": models.Error, "description": "A parameter is wrong."},
    503: {"model": models.Error, "description": "Too many requests at once."},
}
_UPLOAD_ERRORS = {
    **_ERRORS,
    408: {"model": models.Error, "description": "The upload came too slowly."},
    413: {"model": models.Error, "description": "The upload is too large."},
    415: {"model": models.Error, "description": "The upload is no picture."},
}
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "A JPEG picture."},
    **_ERRORS,
}
_FILE = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a picture, or a form with one file.",
        "content": {
            "image/*": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": _FILE}, "required": ["image"]}
            },
        },
    }
}


def application(settings: Web, holder: Holder, workers: Workers) -> Any:
    """Return the ASGI application."""
    app = FastAPI(
        title="vwkit serve",
        version=vwkit.__version__,
        description="A finished run of vwkit. Every error is JSON: `{error: one sentence}`.",
        docs_url=None,  # that page would fetch its scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    uploads = Uploads(settings.max_upload, settings.timeout)
    _add_items(app, holder, workers, settings)
    _add_search(app, holder, workers, uploads, settings.max_pixels)
    _add_groups(app, holder, workers)
    add_pages(app)
    _add_errors(app)
    return Guard(app, Hosts(settings.host, settings.allowed_hosts))


# What a run consists of --------------------------------------------------------------------------


def _add_items(app: FastAPI, holder: Holder, workers: Workers, settings: Web) -> None:
    @app.get("/api/run", response_model=models.Facts, tags=["run"])
    async def run() -> Response:
        """Say what the run is and what can be done with it."""
        served = await holder.get()
        return _json(_facts(served, settings, holder.notice))

    @app.get("/api/items", response_model=models.Items, responses=_ERRORS, tags=["items"])
    async def items(
        offset: Offset = 0,
        limit: Limit = 50,
        q: Annotated[str, Query(max_length=200, description="A part of the id.")] = "",
        skipped: Annotated[
            bool, Query(description="Whether skipped ones are listed, too.")
        ] = False,
    ) -> Response:
        """List the items."""
        served = await holder.get()
        rows = served.kept_rows
        if q or skipped:
            rows = await workers.run(served.find, q, skipped)
        chosen = [_item(served.by_row[row]) for row in rows[offset : offset + limit]]
        return _json({"total": len(rows), "offset": offset, "items": chosen})

    @app.get(
        "/api/items/{row}", response_model=models.ItemDetails, responses=_ERRORS, tags=["items"]
    )
    async def item(row: Row) -> Response:
        """Describe an item."""
        served = await holder.get()
        return _json(await workers.run(_details, served, _known(served, row)))

    @app.get("/api/items/{row}/thumbnail", response_class=Response, responses=_JPEG, tags=["items"])
    async def thumbnail(row: Row, size: Side_ = 320) -> Response:
        """Return a small picture of an item; a stand-in if its file is gone."""
        return await picture(row, size)

    @app.get("/api/items/{row}/image", response_class=Response, responses=_JPEG, tags=["items"])
    async def image(row: Row, size: Side_ = 1600) -> Response:
        """Return an item's picture, encoded anew; a stand-in if its file is gone."""
        return await picture(row, size)

    async def picture(row: int, size: int) -> Response:
        served = await holder.get()
        found = _known(served, row)
        made = served.pictures.kept(found, size)
        if made is not None:
            return Jpeg(made, kept=True)
        content, real = await workers.run(served.pictures.make, found, size)
        return Jpeg(content, kept=real)


def _facts(served: Served, settings: Web, notice: str | None) -> dict[str, Any]:
    run = served.run
    manifest = run.manifest
    rows = served.kept_rows
    spread = np.linspace(0, len(rows) - 1, min(_EXAMPLES, len(rows))).astype(int).tolist()
    scores = run.scores if isinstance(run.scores, dict) else None
    return {
        "name": text(run.folder.resolve().name),
        "version": "-".join(f"{part:x}" for part in served.signature or (0,)),
        "vwkit": vwkit.__version__,
        "items": len(served.items),
        "usable": len(rows),
        "images": run.has("featurizer"),
        "samples": [_item(served.by_row[rows[i]]) for i in spread] if run.has("featurizer") else [],
        "counts": plain(manifest.get("counts", {})),
        "pipeline": _pipeline(run.spec),
        "scores": {
            key: value for key, value in plain(scores).items() if isinstance(value, (int, float))
        }
        if scores
        else None,
        "metric": getattr(run.index, "metric", None) if served.can["search"] else None,
        "fields": served.fields(),
        "can": served.can,
        "why_not": served.why_not,
        "max_upload": settings.max_upload,
        "max_pixels": settings.max_pixels,
        "notice": notice,
    }


def _pipeline(spec: dict[str, Any]) -> list[str]:
    names: list[str] = []
    for slot in ("featurizer", "transform", "quantizer", "clusterer", "index", "rerank"):
        listed = spec.get(slot) or []
        for one in listed if isinstance(listed, list) else [listed]:
            if not isinstance(one, dict):
                continue
            local = one.get("local")
            if isinstance(local, dict):
                names.append(text(str(local.get("use"))))
            names.append(text(str(one.get("use"))))
    return names


def _known(served: Served, row: int) -> Item:
    found = served.by_row.get(row)
    if found is None:
        raise RequestError(
            404, f"there is no item {row}; rows go from 0 to {len(served.items) - 1}"
        )
    return found


def _item(item: Item) -> dict[str, Any]:
    width, height = item.size or (None, None)
    return {
        "row": item.row,
        "id": text(item.id),
        "width": width,
        "height": height,
        "status": item.status,
    }


def _details(served: Served, item: Item) -> dict[str, Any]:
    return {
        **_item(item),
        "reason": None if item.reason is None else str(item.reason),
        "available": is_there(item),
        "cluster": served.cluster_of(item),
        "metadata": plain(item.metadata),
    }


# Search --------------------------------------------------------------------------------------------


def _add_search(
    app: FastAPI, holder: Holder, workers: Workers, uploads: Uploads, max_pixels: int
) -> None:
    @app.get("/api/search", response_model=models.Result, responses=_ERRORS, tags=["search"])
    async def search_by_item(item: Id, k: Count = 24, where: Where = "") -> Response:
        """Find the items most like one of the run's own, by its id."""
        served = await holder.get()
        served.need("search")
        asked = _usable(served, item)
        return _json(await workers.run(_search_item, served, asked, k, where))

    @app.post(
        "/api/search",
        response_model=models.Result,
        responses=_UPLOAD_ERRORS,
        openapi_extra=_BODY,
        tags=["search"],
    )
    async def search_by_picture(request: Request, k: Count = 24, where: Where = "") -> Response:
        """Find the items most like a picture. It stays in memory and is forgotten."""
        served = await holder.get()
        served.need("search")
        return await taken(request, lambda body: _search_upload(served, body, k, where, max_pixels))

    @app.get("/api/matches", response_model=models.Matched, responses=_ERRORS, tags=["search"])
    async def matches_of_item(query: Id, row: Annotated[int, Query(ge=0, le=_LARGEST)]) -> Response:
        """Say which points of two items belong together; `query` is an id."""
        served = await holder.get()
        served.need("matches")
        asked, other = _usable(served, query), _usable_row(served, row)
        return _json(await workers.run(lambda: _matched(served, served.side_of_item(asked), other)))

    @app.post(
        "/api/matches",
        response_model=models.Matched,
        responses=_UPLOAD_ERRORS,
        openapi_extra=_BODY,
        tags=["search"],
    )
    async def matches_of_picture(
        request: Request, row: Annotated[int, Query(ge=0, le=_LARGEST)]
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
        responses={**_JPEG, **_UPLOAD_ERRORS},
        openapi_extra=_BODY,
        tags=["search"],
    )
    async def preview(request: Request, size: Side_ = 1200) -> Response:
        """Return a picture as JPEG, for formats that browsers do not show (TIFF, PPM)."""

        def work(body: bytes) -> bytes:
            import PIL.Image

            from vwkit.report.pictures import fitted

            return encoded(fitted(PIL.Image.fromarray(open_upload(body, max_pixels).rgb), size))

        made = await uploads.picture(request, lambda body: workers.run(work, body))
        if not isinstance(made, bytes):
            raise TypeError(made)
        return Jpeg(made, kept=False)

    async def taken(request: Request, work: Callable[[bytes], dict[str, Any]]) -> Response:
        return _json(await uploads.picture(request, lambda body: workers.run(work, body)))


def _usable(served: Served, name: str) -> Item:
    row = served.row_of(name)
    if row is None:
        raise RequestError(404, f"no item of this run is named {name[:200]!r}")
    return _usable_row(served, row)


def _usable_row(served: Served, row: int) -> Item:
    item = _known(served, row)
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


# Clusters and words --------------------------------------------------------------------------------


def _add_groups(app: FastAPI, holder: Holder, workers: Workers) -> None:
    @app.get("/api/clusters", response_model=models.Clusters, responses=_ERRORS, tags=["clusters"])
    async def clusters(
        offset: Offset = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        show: Annotated[int, Query(ge=0, le=50, description="Items of each.")] = 8,
    ) -> Response:
        """List the clusters of items, the largest first."""
        served = await holder.get()
        served.need("clusters")
        found = served.run.clusters
        listed = [
            _cluster(one.number, one.items, 0, show) for one in found[offset : offset + limit]
        ]
        return _json(
            {
                "total": len(found),
                "offset": offset,
                "unclustered": len(served.run.unclustered),
                "clusters": listed,
            }
        )

    @app.get(
        "/api/clusters/{number}",
        response_model=models.Cluster,
        responses=_ERRORS,
        tags=["clusters"],
    )
    async def cluster(
        number: Annotated[int, Path(ge=-1, le=_LARGEST, description="−1: those in none.")],
        offset: Offset = 0,
        limit: Limit = 60,
    ) -> Response:
        """List the items of a cluster."""
        served = await holder.get()
        served.need("clusters")
        if number == -1:
            return _json(_cluster(-1, served.run.unclustered, offset, limit))
        for one in served.run.clusters:
            if one.number == number:
                return _json(_cluster(number, one.items, offset, limit))
        raise RequestError(404, f"no cluster has the number {number}")

    @app.get("/api/words", response_model=models.Words, responses=_ERRORS, tags=["words"])
    async def words(
        offset: Offset = 0,
        limit: Limit = 20,
        order: Annotated[str, Query(pattern="^(count|number)$")] = "count",
    ) -> Response:
        """List the visual words, the most frequent first or by number."""
        served = await holder.get()
        served.need("words")
        vocabulary = served.vocabulary
        if vocabulary is None:
            raise RequestError(404, "this run has no visual words")
        counts = await workers.run(vocabulary.counted)
        listed = vocabulary.listed(offset, limit, order == "count")
        return _json(
            {
                "total": len(counts),
                "offset": offset,
                "used": int((counts > 0).sum()),
                "occurrences": int(counts.sum()),
                "words": [{"word": word, "count": int(counts[word])} for word in listed],
            }
        )

    @app.get(
        "/api/words/{word}/patches",
        response_model=models.Patches,
        responses=_ERRORS,
        tags=["words"],
    )
    async def patches(
        word: Annotated[int, Path(ge=0, le=_LARGEST)],
        limit: Annotated[int, Query(ge=1, le=48)] = 8,
    ) -> Response:
        """Show a word: the places nearest to its center, cut out of different pictures."""
        served = await holder.get()
        served.need("words")
        served.need("patches")
        return _json(await workers.run(_patches, served, word, limit))


def _cluster(number: int, items: list[Item], offset: int, limit: int) -> dict[str, Any]:
    return {
        "number": number,
        "size": len(items),
        "offset": offset,
        "items": [_item(item) for item in items[offset : offset + limit]],
    }


def _patches(served: Served, word: int, limit: int) -> dict[str, Any]:
    vocabulary = served.vocabulary
    counts = vocabulary.counted() if vocabulary is not None else np.zeros(0, np.int64)
    if vocabulary is None or word >= len(counts):
        raise RequestError(404, f"there is no word {word}; words go from 0 to {len(counts) - 1}")
    found = [{**one, "id": text(one["id"])} for one in vocabulary.patches(word, limit)]
    return {"word": word, "count": int(counts[word]), "patches": found}


# Errors ----------------------------------------------------------------------------------------------


def _json(content: Any) -> Json:
    return Json(content, headers={"cache-control": "no-store"})


def _add_errors(app: FastAPI) -> None:
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        RequestError: _refused,
        VwkitError: _failed,
        RequestValidationError: _invalid,
        HTTPException: _other,
        OSError: _broken,
        MemoryError: _broken,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _unexpected)


async def _refused(request: Request, error: RequestError) -> Response:
    return error_reply(error.status, str(error), close=error.close)


async def _failed(request: Request, error: VwkitError) -> Response:
    return error_reply(status_of(error), str(error))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:]) or "request"
    message = first["msg"][0].lower() + first["msg"][1:]
    given = first.get("input")
    shown = "" if given is None else f"; got {str(given)[:80]!r}"
    return error_reply(422, f"{name}: {message.replace('input should be', 'must be')}{shown}")


async def _other(request: Request, error: HTTPException) -> Response:
    messages = {404: "there is no such page; /api lists what there is", 405: "not with this method"}
    reply = error_reply(error.status_code, messages.get(error.status_code, str(error.detail)))
    reply.headers.update(error.headers or {})
    return reply


async def _broken(request: Request, error: Exception) -> Response:
    return error_reply(500, "the server could not read or hold what it needs for this")


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_reply(500, "this is a fault of the server; its log says more")
