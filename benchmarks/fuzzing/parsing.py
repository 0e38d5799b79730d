"""Targets: the parsers alone, without a file: tens of times as many cases in the same time."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.target import Wrong, target
from benchmarks.fuzzing.texts import _KEYS, _LINES, _TOML, _WORDS, _specs

_PLAIN = (str, int, float, bool, type(None))


def _plain(value: Any) -> bool:
    """Tell whether a value is made of plain data only."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
        elif type(one) not in _PLAIN:
            return False
    return True


@target(
    "metadata-line", lambda _: [line for text in _LINES for line in text.splitlines()], words=_WORDS
)
def metadata_line(data: bytes, folder: Path) -> None:
    """One line of metadata: JSON or a Python literal, of which Python's own reader says the same."""
    from vwkit.metadata import _BadLine, _object, kept_fields, plain, typed

    text = data.decode("utf-8", "replace").strip()
    try:
        found = _object(text)
    except _BadLine as error:
        if not str(error).isprintable():
            raise Wrong(f"a reason that is no line: {error}") from error
        return
    if not _plain(found):
        raise Wrong(f"not plain data: {found!r}")
    kept = kept_fields(found, None)
    typed([kept])
    json.dumps(kept, allow_nan=False).encode()
    if text.startswith("{'") and "\\" not in text and found != plain(ast.literal_eval(text)):
        raise Wrong(f"{found!r} where Python reads {ast.literal_eval(text)!r}")


@target("yaml", lambda _: [*_specs("yaml"), b"a: &x [1, 2]\nb: *x\nc: {d: |\n  text\n, e: >-\n  folded}\n"], words=_KEYS)  # fmt: skip
def yaml(data: bytes, folder: Path) -> None:
    """The text of a spec in YAML, read into plain data."""
    from vwkit.source import parse

    found = parse(data.decode("utf-8", "replace"), "spec.yaml", format="yaml", base=folder)
    if not _plain(found.data):
        raise Wrong(f"not plain data: {found.data!r}"[:300])


@target("toml", lambda _: [_TOML.encode(), b"a.b = 1e3\nc = [1, 'x', {d = 0x1F}]\n[[e]]\nf = \"\\u00e9\"\n"],
        words=(b"[[", b"]]", b"= ", b'"""', b"'''", b"1979-05-27", b"inf", b"nan", b"0x", b"{", b"a.b.c = 1\n", b"[a]\n", b"1_0"))  # fmt: skip
def toml(data: bytes, folder: Path) -> None:
    """The text of a spec in TOML."""
    from vwkit.source import parse

    found = parse(data.decode("utf-8", "replace"), "spec.toml", format="toml", base=folder)
    if not _plain(found.data):
        raise Wrong(f"not plain data: {found.data!r}"[:300])
