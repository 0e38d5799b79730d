"""The application: its routes put together, and what it answers when something is wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import vwkit
from vwkit.errors import VwkitError
from vwkit_serve.errors import RequestError, status_of
from vwkit_serve.group_routes import add_groups
from vwkit_serve.guard import Guard, Hosts
from vwkit_serve.holder import Holder
from vwkit_serve.item_routes import add_items
from vwkit_serve.pages import add_pages
from vwkit_serve.replies import error_reply
from vwkit_serve.search_routes import add_search
from vwkit_serve.uploads import Uploads
from vwkit_serve.workers import Workers

if TYPE_CHECKING:
    from vwkit_serve import Web

__all__ = ["application"]

_log = logging.getLogger("vwkit.serve")


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
    add_items(app, holder, workers, settings)
    add_search(app, holder, workers, uploads, settings.max_pixels)
    add_groups(app, holder, workers)
    add_pages(app)
    _add_errors(app)
    return Guard(app, Hosts(settings.host, settings.allowed_hosts))


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
