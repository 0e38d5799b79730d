"""The page itself, and the page of the API; all from this package, nothing from elsewhere."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from vwkit.report.markup import Html, join, tag
from vwkit_serve.errors import RequestError
from vwkit_serve.replies import Json

__all__ = ["add_pages", "api_page"]

#: A limit that only keeps numbers in the range of the machine is not worth a word.
_LARGEST = 2**31 - 1
_TYPES = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class _Asset:
    """A file of this package, read once."""

    def __init__(self, name: str, media_type: str) -> None:
        folder = importlib.resources.files("vwkit_serve") / "static"
        self.content = (folder / name).read_bytes()
        self.media_type = media_type
        self.tag = f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'

    def reply(self, request: Request) -> Response:
        # Asked for anew each time, so that an update of the package is seen; answered shortly.
        headers = {"cache-control": "no-cache", "etag": self.tag}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def add_pages(app: FastAPI) -> None:
    """Add what is no API: the page, its files, and the description of the API."""
    index = _Asset("index.html", "text/html; charset=utf-8")
    assets = {name: _Asset(name, kind) for name, kind in _TYPES.items()}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return index.reply(request)

    @app.get("/static/{name}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise RequestError(404, "there is no such file")
        return assets[name].reply(request)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon(request: Request) -> Response:
        return assets["icon.svg"].reply(request)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Json(app.openapi(), headers={"cache-control": "no-cache"})

    @app.get("/api", include_in_schema=False)
    async def api(request: Request) -> Response:
        text = api_page(app.openapi(), str(request.base_url).rstrip("/"))
        headers = {"cache-control": "no-cache"}
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)


# The page of the API -------------------------------------------------------------------------------


def api_page(described: dict[str, Any], base: str) -> str:
    """Return a page that shows an OpenAPI description, without any script.

    Parameters
    ----------
    described : dict
        As in ``openapi.json``.
    base : str
        The server's address, for examples.
    """
    info = described["info"]
    operations = [
        _operation(path, method, one, base)
        for path, methods in described["paths"].items()
        for method, one in methods.items()
    ]
    schemas = [_schema(name, one) for name, one in described["components"]["schemas"].items()]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"API · {info['title']}"),
        Html('<link rel="stylesheet" href="/static/app.css">'),
        Html('<link rel="icon" href="/static/icon.svg" type="image/svg+xml">'),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("p", tag("a", "← back to the pictures", href="/"), class_="note"),
            tag("h1", "API"),
            tag("p", _code(info["description"]), class_="lead"),
            tag(
                "p",
                f"Version {info['version']}. For programs: ",
                tag("a", "openapi.json", href="/openapi.json"),
                class_="note",
            ),
            class_="plain",
        ),
        tag("main", *operations, tag("section", tag("h2", "What is answered"), *schemas)),
        class_="api",
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _code(text: str) -> Html:
    """Show what stands between backticks as code."""
    parts = text.split("`")
    return join(tag("code", part) if i % 2 else part for i, part in enumerate(parts))


def _operation(path: str, method: str, one: dict[str, Any], base: str) -> Html:
    rows = [_parameter(parameter) for parameter in one.get("parameters", ())]
    body = one.get("requestBody")
    if body:
        kinds = " or ".join(body.get("content", {}))
        rows.append(_row("body", kinds, "required", body.get("description", "")))
    answers = [
        _row(status, _answered(answer), "", _said(answer.get("description", "")))
        for status, answer in sorted(one.get("responses", {}).items())
    ]
    return tag(
        "section",
        tag("h2", tag("span", method.upper(), class_=f"method {method}"), " ", tag("code", path)),
        tag("p", _code(one.get("description") or one.get("summary", ""))),
        _table(("parameter", "type", "default", ""), rows) if rows else None,
        _table(("status", "answer", "", ""), answers),
        tag("pre", tag("code", _example(path, method, one, base)), tabindex="0"),
        id=f"{method}{path}",
    )


def _example(path: str, method: str, one: dict[str, Any], base: str) -> str:
    filled = path.replace("{row}", "0").replace("{number}", "0").replace("{word}", "0")
    known = {"item": "ID", "query": "ID", "row": "0"}
    asked = "&".join(
        f"{parameter['name']}={known.get(parameter['name'], '…')}"
        for parameter in one.get("parameters", ())
        if parameter["in"] == "query" and parameter.get("required")
    )
    url = f"{base}{filled}" + (f"?{asked}" if asked else "")
    return f"curl --data-binary @photo.jpg '{url}'" if method == "post" else f"curl '{url}'"


def _parameter(one: dict[str, Any]) -> Html:
    schema = one.get("schema", {})
    default = "required" if one.get("required") else json.dumps(schema.get("default"))
    return _row(one["name"], _kind(schema), default, one.get("description", ""))


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    limits = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("pattern", "matches"))
        if schema.get(key, _LARGEST) != _LARGEST
    ]
    return " ".join([str(schema.get("type", "any")), *limits])


def _answered(answer: dict[str, Any]) -> str:
    kinds = []
    for kind, content in answer.get("content", {}).items():
        named = _kind(content.get("schema", {}))
        kinds.append(named if kind == "application/json" else kind)
    return " or ".join(kinds)


def _said(description: str) -> str:
    """Leave out what the framework says where nobody said anything."""
    return "" if description == "Successful Response" else description


def _schema(name: str, one: dict[str, Any]) -> Html:
    rows = [
        _row(key, _kind(value), "", value.get("description", ""))
        for key, value in one.get("properties", {}).items()
    ]
    return tag(
        "div",
        tag("h3", name),
        tag("p", _code(one.get("description", "")), class_="note"),
        _table(("field", "type", "", ""), rows),
        class_="schema",
    )


def _row(name: str, kind: str, default: str, says: str) -> Html:
    cells: Iterator[Html] = iter(
        [tag("td", tag("code", name)), tag("td", kind), tag("td", default), tag("td", _code(says))]
    )
    return tag("tr", *cells)


def _table(head: tuple[str, ...], rows: list[Html]) -> Html:
    top = join(tag("th", text, scope="col") if text else tag("td") for text in head)
    inner = tag("table", tag("thead", tag("tr", top)), tag("tbody", *rows))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=head[0])
