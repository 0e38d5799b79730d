"""Answers: JSON in plain ASCII, pictures, pages."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

__all__ = ["Jpeg", "Json", "error_reply"]


class Json(Response):
    """JSON whatever the text: a name that is not Unicode is escaped, not an error."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write the content as bytes."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Jpeg(Response):
    """A picture that was encoded here; `version` changes when the run does."""

    media_type = "image/jpeg"

    def __init__(self, content: bytes, *, kept: bool) -> None:
        # Browsers may keep a run's pictures for a while, but no stand-in for one.
        control = "private, max-age=600" if kept else "no-store"
        super().__init__(content, headers={"cache-control": control})


def error_reply(status: int, message: str, *, close: bool = False) -> Json:
    """Return an error as JSON: one sentence."""
    headers = {"cache-control": "no-store"}
    if close:
        headers["connection"] = "close"
    if status == 503:
        headers["retry-after"] = "1"
    return Json({"error": " ".join(message.split())}, status, headers)
