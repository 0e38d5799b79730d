"""Who may ask, and what browsers may do with the answers.

A server on loopback is reached by every page that the same browser shows. So a request must name a
host that is ours (a name that an attacker's DNS points here, "DNS rebinding", is refused), must not
come from a page of another origin, and every answer forbids the browser everything but what this
application needs.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vwkit_serve.replies import error_reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "Hosts", "is_loopback"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Hosts:
    """The names under which this server may be asked.

    Parameters
    ----------
    bound : str
        The address that it listens on.
    further : names
        That the user allows besides.
    """

    def __init__(self, bound: str, further: Iterable[str] = ()) -> None:
        names = {"localhost", "127.0.0.1", "::1", bound, *further}
        # A name can be pointed here by whoever owns it; an address cannot.
        self._any_address = not is_loopback(bound)
        if self._any_address:
            names.add(socket.gethostname())
        self._names = {name.lower().rstrip(".") for name in names}

    def allow(self, header: str) -> bool:
        """Tell whether a ``Host`` header, with or without a port, names us."""
        try:
            parts = urlsplit(f"//{header}")
            host, _ = parts.hostname, parts.port  # a port that is no number is refused
        except ValueError:
            return False
        if not host or parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        host = host.rstrip(".")
        if host in self._names:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return self._any_address


class Guard:
    """Middleware: refuses requests from elsewhere and adds the headers of safety."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return

        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        app: Any = self._app if refusal is None else error_reply(*refusal, close=True)
        try:
            await app(scope, receive, guarded)
        except Exception:
            if not started:
                raise
            # Answered and logged already; the framework raises it once more for its server.

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        found: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            found.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = found.get(b"host", [])
        if len(hosts) != 1 or not self._hosts.allow(hosts[0]):
            return 400, (
                "this server is not asked under that Host; use the address that it printed, or "
                "name the host in allowed_hosts"
            )
        for origin in found.get(b"origin", []):
            if urlsplit(origin).netloc.lower() != hosts[0].lower():
                return 403, "pages of other origins may not ask this server"
        # A link to us may be followed; a foreign page's pictures, scripts and forms may not ask.
        site = found.get(b"sec-fetch-site", ["none"])[-1]
        follows = found.get(b"sec-fetch-mode", [""])[-1] == "navigate" and scope["method"] == "GET"
        if site not in ("none", "same-origin") and not follows:
            return 403, "pages of other origins may not ask this server"
        return None
