"""HTML as nested calls, in which text can only ever be text.

Everything that is not `Html` already is escaped, so that no item id, reason or parameter can bring
markup with it: what is forgotten is shown literally, never run.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

__all__ = ["Html", "join", "tag"]

_VOID = frozenset({"br", "hr", "img", "input", "meta"})
# Control characters have no place in HTML; direction overrides could make a name look like another.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


class Html(str):
    """Markup that is safe to put into a page as it is."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Turn any text into markup that shows it."""
    if isinstance(text, Html):
        return text
    # A file name that is not UTF-8 holds lone surrogates, which cannot be written.
    plain = str(text).encode("utf-8", "backslashreplace").decode()
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", plain)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Put parts behind each other; those that are None are left out."""
    return Html(escape(between).join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Make an element.

    Parameters
    ----------
    name : str
    *children : Html, text, numbers or None
    **attributes
        ``class_`` is ``class``, ``aria_label`` is ``aria-label``; True gives a bare attribute,
        None and False give none.

    Examples
    --------
    >>> tag("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    said = "".join(
        f" {key}" if value is True else f' {key}="{escape(value)}"'
        for key, value in _named(attributes)
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def _named(attributes: dict[str, object]) -> Iterable[tuple[str, object]]:
    return ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
