"""Which URLs may be asked: http and https, of hosts in the public internet.

A metadata file is untrusted: a URL in it must not make this machine talk to services that only it can
reach (a router, a cloud's metadata service, a database on localhost). So names are resolved here, the
addresses are judged, and the connection goes to the very address that was judged: a name that changes
its meaning in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
from dataclasses import dataclass

__all__ = ["Refused", "Target", "is_public", "parsed", "resolved"]

_LONGEST = 8192
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORTS = {"http": 80, "https": 443}
# What may stand in a path and query as it is; "%" keeps escapes that are there.
_SAFE = "/%:@!$&'()*+,;=~-._?"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: All that is given out of IPv6 today; forms that hide an IPv4 address lie elsewhere.
_GLOBAL6 = ipaddress.ip_network("2000::/3")


class Refused(Exception):
    """A URL that is not asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes.

    Attributes
    ----------
    scheme : str
        ``http`` or ``https``.
    host : str
        As it is resolved and checked by TLS: ASCII, lower case.
    port : int
    path : str
        With the query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def site(self) -> tuple[str, str, int]:
        """What one connection serves."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The whole in one normal form."""
        named = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{named}{port}{self.path}"


def parsed(text: str, base: Target | None = None) -> Target:
    """Read a URL, relative to another one where that is given (a redirect).

    Raises
    ------
    Refused
        It is no http or https URL, or a strange one.
    """
    text = text.strip()
    if not text:
        raise Refused("no URL")
    if len(text) > _LONGEST or _CONTROL.search(text):
        raise Refused("not a URL: too long, or with control characters")
    try:
        parts = urllib.parse.urlsplit(
            text if base is None else urllib.parse.urljoin(base.url, text)
        )
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise Refused(f"not a URL: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        what = f"{scheme}: is not fetched" if scheme else f"{_short(text)!r} is no URL"
        raise Refused(f"{what}, only http:// and https:// are")
    if not host:
        raise Refused(f"{_short(text)!r} names no host")
    if "@" in parts.netloc:
        raise Refused("the URL holds a user name or password; not fetched")
    if ":" not in host:
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise Refused(f"{_short(host)!r} is no host name") from None
        if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
            raise Refused(f"{_short(host)!r} is no host name")
    try:
        path = urllib.parse.quote(parts.path or "/", safe=_SAFE)
        if parts.query:
            path += "?" + urllib.parse.quote(parts.query, safe=_SAFE)
    except UnicodeError:  # half a surrogate pair, which JSON can write
        raise Refused("not a URL: with half a character") from None
    return Target(scheme, host.lower(), _PORTS[scheme] if port is None else port, path)


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet, hidden forms seen through."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL6:
            return False
    return ip.is_global and not ip.is_multicast


def resolved(target: Target, allow_private: bool) -> list[tuple[int, tuple[object, ...]]]:
    """Return the addresses to try, as (family, socket address).

    Raises
    ------
    Refused
        One of them is private, loopback, link-local or otherwise not public. One is enough: an honest
        name has none.
    OSError
        The name is not known (now).
    """
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    if not allow_private:
        for _, address in addresses:
            if not is_public(str(address[0])):
                raise Refused(
                    f"{target.host} is {address[0]}, which is not in the public internet; "
                    "`allow_private: true` fetches it all the same"
                )
    return [(int(family), address) for family, address in addresses]


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
