"""Routes of clusters and visual words."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query
from starlette.responses import Response

from vwkit.types import Item
from vwkit_serve import models
from vwkit_serve.errors import RequestError
from vwkit_serve.holder import Holder
from vwkit_serve.served import Served, text
from vwkit_serve.shared import ERRORS, LARGEST, Limit, Offset, item_of, reply
from vwkit_serve.workers import Workers

__all__ = ["add_groups"]


def add_groups(app: FastAPI, holder: Holder, workers: Workers) -> None:
    """Add the routes below ``/api/clusters`` and ``/api/words``."""

    @app.get("/api/clusters", response_model=models.Clusters, responses=ERRORS, tags=["clusters"])
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
        return reply(
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
        responses=ERRORS,
        tags=["clusters"],
    )
    async def cluster(
        number: Annotated[int, Path(ge=-1, le=LARGEST, description="−1: those in none.")],
        offset: Offset = 0,
        limit: Limit = 60,
    ) -> Response:
        """List the items of a cluster."""
        served = await holder.get()
        served.need("clusters")
        if number == -1:
            return reply(_cluster(-1, served.run.unclustered, offset, limit))
        for one in served.run.clusters:
            if one.number == number:
                return reply(_cluster(number, one.items, offset, limit))
        raise RequestError(404, f"no cluster has the number {number}")

    @app.get("/api/words", response_model=models.Words, responses=ERRORS, tags=["words"])
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
        return reply(
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
        responses=ERRORS,
        tags=["words"],
    )
    async def patches(
        word: Annotated[int, Path(ge=0, le=LARGEST)],
        limit: Annotated[int, Query(ge=1, le=48)] = 8,
    ) -> Response:
        """Show a word: the places nearest to its center, cut out of different pictures."""
        served = await holder.get()
        served.need("words")
        served.need("patches")
        return reply(await workers.run(_patches, served, word, limit))


def _cluster(number: int, items: list[Item], offset: int, limit: int) -> dict[str, Any]:
    return {
        "number": number,
        "size": len(items),
        "offset": offset,
        "items": [item_of(item) for item in items[offset : offset + limit]],
    }


def _patches(served: Served, word: int, limit: int) -> dict[str, Any]:
    vocabulary = served.vocabulary
    counts = vocabulary.counted() if vocabulary is not None else np.zeros(0, np.int64)
    if vocabulary is None or word >= len(counts):
        raise RequestError(404, f"there is no word {word}; words go from 0 to {len(counts) - 1}")
    found = [{**one, "id": text(one["id"])} for one in vocabulary.patches(word, limit)]
    return {"word": word, "count": int(counts[word]), "patches": found}
