"""The app `web`: a finished run in the browser, and as a JSON API.

Nothing of the web framework is imported before a run is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import annotated_types

import vwkit
from vwkit.around import App

__all__ = ["Web", "vwkit_backends"]

_Port = Annotated[int, annotated_types.Ge(0), annotated_types.Le(65_535)]


@vwkit.backend("web")
class Web(App):
    """A local web page and JSON API: search by picture, see why it matches, browse groups and words.

    It answers on this machine only, unless another host is asked for. Uploaded pictures stay in
    memory.

    Examples
    --------
    >>> import vwkit
    >>> vwkit.create("app", "web", port=0)
    Web(port=0)
    """

    library = "fastapi"
    requires = ("fastapi", "uvicorn", "python_multipart")
    license = "MIT"
    choose = "to look at a finished run in the browser, or to ask it from another program."

    host: str = vwkit.Field(
        default="127.0.0.1", doc="Address to listen on; any but loopback lets others in."
    )
    port: _Port = vwkit.Field(default=8765, doc="0 takes a free one.")
    max_upload: vwkit.Positive = vwkit.Field(
        default=16 * 1024 * 1024, doc="Bytes of an uploaded picture."
    )
    max_pixels: vwkit.Positive = vwkit.Field(
        default=50_000_000, doc="Pixels of a picture; a larger one is refused before it is decoded."
    )
    threads: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Requests that are worked on at once; the job's threads by default."
    )
    queue: vwkit.Positive = vwkit.Field(
        default=256, doc="Requests that may wait for a thread; more are answered with 503."
    )
    timeout: vwkit.Positive = vwkit.Field(
        default=30, doc="Seconds that a client may take to send its request."
    )
    allowed_hosts: tuple[str, ...] = vwkit.Field(
        default=(), doc="Further names under which browsers may ask, such as a proxy's."
    )

    def _serve(self, run: Any, ready: Callable[[str], None]) -> None:
        from vwkit_serve.server import serve

        serve(self, run, ready)


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Return the backends of this plugin."""
    return [Web]
