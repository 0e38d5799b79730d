"""URLs as text: what is one, what it names, and what of it may be told."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["is_url", "local_of_url", "name_of_url", "secret_in", "shown_url"]

# fsspec chains file systems with "::", as in simplecache::s3://bucket/name.
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")
_LOCAL = re.compile(r"(?:file|local)://", re.IGNORECASE)
_SECRET = re.compile(r"signature|^sig$|token|secret|password|credential|api_?key", re.IGNORECASE)


def is_url(value: object) -> bool:
    """Tell whether a value is text that begins like a URL, also like one of fsspec's chains."""
    return isinstance(value, str) and _URL.match(value) is not None


def local_of_url(url: str) -> Path | None:
    """Return the path of a ``file://`` URL; None for every other URL."""
    found = _LOCAL.match(url)
    # As fsspec has it: nothing is percent-encoded in such a URL.
    return Path(url[found.end() :]) if found and "::" not in url else None


def name_of_url(url: str) -> str:
    """Return the file name in a URL, which tells the format."""
    part = next(part for part in url.split("::") if "://" in part)
    scheme, _, rest = part.partition("://")
    if scheme.lower() in ("http", "https"):
        rest = unquote(rest.partition("#")[0].partition("?")[0])
    return rest.partition("?")[0].rstrip("/").rpartition("/")[2]


def shown_url(url: str) -> str:
    """Return a URL as it may be told to anybody: without password, and without what follows ``?``."""
    shown = []
    for part in url.split("::"):
        bare, asked, _ = part.partition("?")
        bare = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:…@", bare)
        shown.append(f"{bare}?…" if asked else bare)
    return "::".join(shown)


def secret_in(url: str) -> str | None:
    """Return what in a URL is a secret, such as ``the password``; None if nothing looks like one."""
    for part in url.split("::"):
        if re.match(r"[^:/?]+://[^/@?]*:[^/@?]+@", part):
            return "a password"
        for key, _ in parse_qsl(urlsplit(part).query):
            if _SECRET.search(key):
                return key
    return None
