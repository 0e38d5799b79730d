"""What the routes share: parameters, documented answers, items as data."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query

from vwkit.types import Item
from vwkit_serve import models
from vwkit_serve.errors import RequestError
from vwkit_serve.replies import Json
from vwkit_serve.served import Served, text

__all__ = [
    "BODY", "ERRORS", "JPEG", "LARGEST", "UPLOAD_ERRORS", "Count", "Id", "Limit", "Offset", "Pixels",
    "Row", "Where", "item_of", "known", "reply",
]  # fmt: skip

LARGEST = 2**31 - 1

Offset = Annotated[int, Query(ge=0, le=LARGEST)]
Limit = Annotated[int, Query(ge=1, le=200)]
Row = Annotated[int, Path(ge=0, le=LARGEST, description="Number of the item.")]
Count = Annotated[int, Query(ge=1, le=200, description="Results wanted.")]
Where = Annotated[
    str,
    Query(
        max_length=2000, description="Only items whose metadata fulfil this, such as `price < 20`."
    ),
]
Id = Annotated[str, Query(max_length=4096)]
Pixels = Annotated[int, Query(ge=16, le=2048, description="Pixels of the longer side, at most.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": models.Error, "description": "There is no such thing in this run."},
    422: {"model": models.Error, "description": "A parameter is wrong."},
    503: {"model": models.Error, "description": "Too many requests at once."},
}
UPLOAD_ERRORS = {
    **ERRORS,
    408: {"model": models.Error, "description": "The upload came too slowly."},
    413: {"model": models.Error, "description": "The upload is too large."},
    415: {"model": models.Error, "description": "The upload is no picture."},
}
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "A JPEG picture."},
    **ERRORS,
}
_FILE = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
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


def known(served: Served, row: int) -> Item:
    """Return an item by its row, or refuse the request."""
    found = served.by_row.get(row)
    if found is None:
        raise RequestError(
            404, f"there is no item {row}; rows go from 0 to {len(served.items) - 1}"
        )
    return found


def item_of(item: Item) -> dict[str, Any]:
    """Return an item as data; see `vwkit_serve.models.Item`."""
    width, height = item.size or (None, None)
    return {
        "row": item.row,
        "id": text(item.id),
        "width": width,
        "height": height,
        "status": item.status,
    }


def reply(content: Any) -> Json:
    """Answer with data, not to be kept by the browser."""
    return Json(content, headers={"cache-control": "no-store"})
