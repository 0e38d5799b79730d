"""TOML text to plain data, with the line and column of every key and value.

`tomllib` reads and judges the text but tells no positions. They come from a second, shallow walk
over the text, which may trust it to be valid: it knows headers, dotted keys, arrays, inline tables
and where strings end, and nothing of what values mean. A table opened in several places (a dotted
key, then a header) has the place of its own header, else of its first mention.

Numbers follow the rule of `vwkit._yaml12`: ``1e6`` is an int. Dates are refused, as specs hold none.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from vwkit._yaml12 import MAX_DEPTH, BadText, KeyPath, Place, Places, floating

__all__ = ["read"]

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r]+|\#[^\n]*)
    | \"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5}
    | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
    | [^\s\[\]{},=.\#"']+ | .
    """,
    re.DOTALL | re.VERBOSE,
)
_TOMLLIB_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_REPEATED = ("Cannot ", "Duplicate inline table key")
_PLAIN_WORDS = {
    "Invalid value": "no value begins here; text needs quotes",
    "Expected newline": "a new line is expected here; text needs quotes, numbers begin with no 0",
    "Unescaped": "this backslash begins no known escape; double it, or use single quotes",
    "Cannot": "this clashes with an entry of the same name above",
}


def read(text: str) -> tuple[dict[str, Any], Places]:
    """Read a TOML document.

    Parameters
    ----------
    text : str
        The document, decoded.

    Returns
    -------
    data : dict
        Of dict, list, str, int, float and bool.
    places : Places
        For every path in `data`.

    Raises
    ------
    BadText
        With the first problem of syntax, or all dates and numbers that cannot be taken.
    """
    text = text.replace("\r\n", "\n")  # as tomllib does, so that its columns are ours
    try:
        data = tomllib.loads(text, parse_float=_float)
    except tomllib.TOMLDecodeError as error:
        raise BadText(_in_words(text, str(error))) from None
    except RecursionError:
        raise BadText(((1, 1), f"nested more than {MAX_DEPTH} levels deep")) from None
    except ValueError:  # Python's own limit on the digits of an int
        found = re.search(r"[0-9_]{4000,}", text)
        place = _Walk(text).place(found.start() if found else 0)
        raise BadText((place, "a number of so many digits is too large")) from None
    places = _Walk(text).places()
    if problems := _refused(data, (), places):
        raise BadText(*problems)
    return data, places


@dataclass(frozen=True)
class _TooLarge:
    """Stands for a number until its place is known and it is refused."""

    text: str


def _float(text: str) -> int | float | _TooLarge:
    try:
        return floating(text)
    except ValueError:
        return _TooLarge(text)


def _refused(value: Any, path: KeyPath, places: Places) -> list[tuple[Place, str]]:
    """List what is not plain data."""
    at = places[path][1]
    if len(path) > MAX_DEPTH:
        return [(at, f"nested more than {MAX_DEPTH} levels deep")]
    if isinstance(value, dict):
        inner = [_refused(item, (*path, key), places) for key, item in value.items()]
        return [problem for problems in inner for problem in problems]
    if isinstance(value, list):
        inner = [_refused(item, (*path, i), places) for i, item in enumerate(value)]
        return [problem for problems in inner for problem in problems]
    if isinstance(value, _TooLarge):
        return [(at, f"{value.text[:40]!r} is too large for a number; write inf for infinity")]
    if not isinstance(value, str | int | float):
        return [(at, f"a spec holds no dates or times; put {value.isoformat()} in quotes")]
    return []


def _in_words(text: str, message: str) -> tuple[Place, str]:
    """Split tomllib's sentence into place and words; find both places of a repeated key."""
    lines = text.split("\n")
    place = (len(lines), len(lines[-1]) + 1)
    if found := _TOMLLIB_PLACE.search(message):
        message = message[: found.start()]
        if found.group(1):
            place = (int(found.group(1)), int(found.group(2)))
    if message.startswith(_REPEATED):
        # Up to its place the text is sound; after it, nobody has looked.
        before = [*lines[: place[0] - 1], lines[place[0] - 1][: place[1] - 1]]
        walk = _Walk("\n".join(before))
        walk.places()
        if walk.repeated is not None:
            key, first, again = walk.repeated
            line, column = walk.place(first)
            return walk.place(again), (
                f"the key {key!r} is repeated; it stands first at {line}:{column}"
            )
    for begin, words in _PLAIN_WORDS.items():
        if message.startswith(begin):
            return place, words
    return place, message[:1].lower() + message[1:]


class _Walk:
    """One pass over valid TOML that notes where each key and value begins."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._tokens = [
            (found.group(), found.start())
            for found in _TOKEN.finditer(text)
            if found.lastgroup is None
        ]
        self._tokens.append(("", len(text)))
        self._next = 0
        self._found: dict[KeyPath, tuple[int, int]] = {(): (0, 0)}
        self._own: dict[KeyPath, int] = {}  # the paths that were written out, not just passed
        self._counts: dict[KeyPath, int] = {}  # arrays of tables
        self.repeated: tuple[str, int, int] | None = None

    def place(self, offset: int) -> Place:
        """Give the line and column of an offset into the text."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def places(self) -> Places:
        """Walk; return the place of each key and value."""
        table: KeyPath = ()
        while self._token()[0]:
            if self._token()[0] == "[":
                table = self._header()
            elif self._token()[0] != "\n":
                self._pair(table)
            while self._token()[0] not in ("\n", ""):
                self._next += 1
            self._next += self._token()[0] == "\n"
        return {path: (self.place(a), self.place(b)) for path, (a, b) in self._found.items()}

    def _token(self) -> tuple[str, int]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, int]:
        token = self._tokens[self._next]
        self._next += bool(token[0])  # the empty token at the end stays
        return token

    def _key(self) -> list[tuple[str, int]]:
        """Read ``a."b".c``: each part and its offset."""
        parts = []
        while True:
            part, offset = self._take()
            if part[:1] in ("'", '"'):
                part = next(iter(tomllib.loads(f"{part} = 0")), "")
            parts.append((part, offset))
            if self._token()[0] != ".":
                return parts
            self._take()

    def _header(self) -> KeyPath:
        self._take()
        many = self._token()[0] == "["
        if many:
            self._take()
        path: KeyPath = ()
        parts = self._key()
        for i, (part, offset) in enumerate(parts):
            path += (part,)
            self._found.setdefault(path, (offset, offset))
            if i < len(parts) - 1 and path in self._counts:
                path += (self._counts[path] - 1,)  # a header means the last table of an array
        offset = parts[-1][1]
        if many:
            self._counts[path] = self._counts.get(path, 0) + 1
            path += (self._counts[path] - 1,)
        self._write(path, offset, offset)
        return path

    def _pair(self, table: KeyPath) -> None:
        """Read ``key = value`` inside `table`."""
        path = table
        parts = self._key()
        for part, offset in parts:
            path += (part,)
            self._found.setdefault(path, (offset, offset))
        if self._token()[0] == "=":
            self._take()
        self._write(path, parts[-1][1], self._token()[1])
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._token()[0]
        if opening not in ("[", "{"):
            while self._token()[0] not in (",", "]", "}", "\n", ""):
                self._take()
            return
        self._take()
        count = 0
        while (token := self._token())[0] not in ("]", "}", ""):
            if token[0] in (",", "\n"):
                self._take()
            elif opening == "{":
                self._pair(path)
            else:
                self._write((*path, count), token[1], token[1])
                self._value((*path, count))
                count += 1
        self._take()

    def _write(self, path: KeyPath, key: int, value: int) -> None:
        name = path[-1]
        if path in self._own and self.repeated is None and isinstance(name, str):
            self.repeated = (name, self._own[path], key)
        self._own.setdefault(path, key)
        self._found[path] = (key, value)
