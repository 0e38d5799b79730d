"""Routes of the run itself and of its items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import FastAPI, Query
from starlette.responses import Response

import vwkit
from vwkit.types import Item
from vwkit_serve import models
from vwkit_serve.holder import Holder
from vwkit_serve.pictures import is_there
from vwkit_serve.replies import Jpeg
from vwkit_serve.served import Served, plain, text
from vwkit_serve.shared import ERRORS, JPEG, Limit, Offset, Pixels, Row, item_of, known, reply
from vwkit_serve.workers import Workers

if TYPE_CHECKING:
    from vwkit_serve import Web

__all__ = ["add_items"]

_EXAMPLES = 24


def add_items(app: FastAPI, holder: Holder, workers: Workers, settings: Web) -> None:
    """Add the routes below ``/api/run`` and ``/api/items``."""

    @app.get("/api/run", response_model=models.Facts, tags=["run"])
    async def run() -> Response:
        """Say what the run is and what can be done with it."""
        served = await holder.get()
        return reply(_facts(served, settings, holder.notice))

    @app.get("/api/items", response_model=models.Items, responses=ERRORS, tags=["items"])
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
        chosen = [item_of(served.by_row[row]) for row in rows[offset : offset + limit]]
        return reply({"total": len(rows), "offset": offset, "items": chosen})

    @app.get(
        "/api/items/{row}", response_model=models.ItemDetails, responses=ERRORS, tags=["items"]
    )
    async def item(row: Row) -> Response:
        """Describe an item."""
        served = await holder.get()
        return reply(await workers.run(_details, served, known(served, row)))

    @app.get("/api/items/{row}/thumbnail", response_class=Response, responses=JPEG, tags=["items"])
    async def thumbnail(row: Row, size: Pixels = 320) -> Response:
        """Return a small picture of an item; a stand-in if its file is gone."""
        return await picture(row, size)

    @app.get("/api/items/{row}/image", response_class=Response, responses=JPEG, tags=["items"])
    async def image(row: Row, size: Pixels = 1600) -> Response:
        """Return an item's picture, encoded anew; a stand-in if its file is gone."""
        return await picture(row, size)

    async def picture(row: int, size: int) -> Response:
        served = await holder.get()
        found = known(served, row)
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
        "samples": [item_of(served.by_row[rows[i]]) for i in spread]
        if run.has("featurizer")
        else [],
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


def _details(served: Served, item: Item) -> dict[str, Any]:
    return {
        **item_of(item),
        "reason": None if item.reason is None else str(item.reason),
        "available": is_there(item),
        "cluster": served.cluster_of(item),
        "metadata": plain(item.metadata),
    }
