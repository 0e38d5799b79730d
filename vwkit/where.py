"""Which items a search may find, said in one line: ``price < 20 and category == 'Dress'``.

A small language of its own, parsed here and computed column by column; nothing of it is Python, so nothing
that somebody types runs anything.

    expression  = and-part { "or" and-part }
    and-part    = not-part { "and" not-part }
    not-part    = "not" not-part | "(" expression ")" | "has" field | comparison
    comparison  = field ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) value
                | field [ "not" ] "in" "[" value { "," value } "]"
                | field "contains" value
    field       = name { "." name } | "`" any text "`"
    value       = number | 'text' | "text" | true | false

A comparison of an item that lacks the field, or has something of another kind there, is false; so is its
``!=``. ``contains`` looks for text in text, upper and lower case alike, or for a value in a list. ``id``,
``width`` and ``height`` are fields of every item, unless its metadata have others of that name.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.columns import Column, Columns, Mask
from vwkit.errors import ParameterError
from vwkit.types import Matches

__all__ = ["Where", "parse", "search_allowed"]

_LONGEST = 10_000
_DEEPEST = 50

Value = float | int | str | bool

_TOKEN = re.compile(
    r"""\s*+(?:
      (?P<number>[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?(?![\w.]))
    | (?P<text>'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")
    | (?P<name>[^\W0-9][\w-]*+(?:\.[\w-]++)*+|`[^`]++`)
    | (?P<sign><=|>=|==|!=|<|>|[()\[\],])
    )""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "contains", "has", "true", "false")
_ORDERED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_NEARLY = {"=": "==", "&": "and", "&&": "and", "|": "or", "||": "or", "!": "not", "<>": "!="}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


@dataclass(frozen=True)
class _Test:
    """One comparison: a field, what is done with it, and with which values."""

    field: str
    sign: str
    values: tuple[Value, ...]
    column: int


@dataclass(frozen=True)
class _Not:
    inner: Any


@dataclass(frozen=True)
class _Many:
    """Parts of which all (``and``) or one (``or``) must hold."""

    word: str
    parts: tuple[Any, ...]


class Where:
    """A parsed expression.

    Examples
    --------
    >>> from vwkit.columns import Columns
    >>> from vwkit.types import Item
    >>> items = [Item(0, "a", metadata={"price": 5}), Item(1, "b", metadata={"price": 50})]
    >>> parse("price < 20 or id == 'c'").mask(Columns(items)).tolist()
    [True, False]
    """

    def __init__(self, text: str, tree: Any) -> None:
        self.text = text
        self._tree = tree

    def __repr__(self) -> str:
        return f"Where({self.text!r})"

    def mask(self, columns: Columns) -> Mask:
        """Tell for each item whether it may be found, (n,) bool.

        Raises
        ------
        ParameterError
            No item has a field, or none has a value there that could be compared so.
        """
        return self._mask(self._tree, columns)

    def _mask(self, tree: Any, columns: Columns) -> Mask:
        if isinstance(tree, _Not):
            return ~self._mask(tree.inner, columns)
        if isinstance(tree, _Many):
            together = np.logical_and if tree.word == "and" else np.logical_or
            found: Mask = together.reduce([self._mask(part, columns) for part in tree.parts])
            return found
        column = columns.column(tree.field)
        if column is None:
            known = columns.names()
            low = tree.field.casefold()
            near = [name for name in known if name.casefold() == low][:1]
            near = near or difflib.get_close_matches(tree.field, known, n=1)
            few = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
            hint = f"did you mean {near[0]}?" if near else f"there are {few}"
            raise _wrong(self.text, tree.column, f"no item has a field {tree.field!r}; {hint}")
        if tree.sign == "has":
            return column.present
        if tree.sign == "contains":
            return self._contains(tree, column)
        masks = [self._compared(tree, column, value) for value in tree.values]
        return np.logical_or.reduce(masks) if len(masks) != 1 else masks[0]

    def _compared(self, test: _Test, column: Column, value: Value) -> Mask:
        if isinstance(value, bool):
            self._need(test, column, column.flags >= 0, "true or false")
            same = np.asarray(column.flags == int(value))
            return same if test.sign != "!=" else (column.flags >= 0) & ~same
        if isinstance(value, str):
            self._need(test, column, column.is_text, "text")
            if test.sign in _ORDERED:
                found = np.zeros(len(column.is_text), bool)
                where = column.is_text
                found[where] = np.asarray(_ORDERED[test.sign](column.texts[where], value), bool)
                return found
            equal: Mask = np.asarray(column.texts == value, bool)
            return column.is_text & (equal if test.sign != "!=" else ~equal)
        numeric: Mask = ~np.isnan(column.numbers)
        self._need(test, column, numeric, "numbers")
        with np.errstate(invalid="ignore"):
            if test.sign in _ORDERED:
                return np.asarray(_ORDERED[test.sign](column.numbers, value), bool)
            same = np.asarray(column.numbers == value)
        return same if test.sign != "!=" else numeric & ~same

    def _contains(self, test: _Test, column: Column) -> Mask:
        value = test.values[0]
        fitting = column.is_text | column.is_list
        self._need(test, column, fitting, "text or lists")
        found = np.zeros(len(fitting), bool)
        if isinstance(value, str):
            part = value.casefold()
            rows = np.flatnonzero(column.is_text)
            found[rows] = [part in text.casefold() for text in column.texts[rows]]
        rows = np.flatnonzero(column.is_list)
        found[rows] = [_holds(one, value) for one in column.lists[rows]]
        return found

    def _need(self, test: _Test, column: Column, fitting: Mask, what: str) -> None:
        """Refuse a comparison that cannot be true of any item: it is a mistake."""
        if not fitting.any() and column.present.any():
            raise _wrong(
                self.text,
                test.column,
                f"{test.field} has {column.kinds()}, never {what}, so this can never be true",
            )


def _holds(values: Any, wanted: Value) -> bool:
    """Tell whether a list, or a list in it, has a value; text without regard to case."""
    if isinstance(values, list):
        return any(_holds(one, wanted) for one in values)
    if isinstance(values, str) and isinstance(wanted, str):
        return values.casefold() == wanted.casefold()
    return type(values) is not str and not isinstance(wanted, str) and bool(values == wanted)


def search_allowed(
    index: Any, queries: Any, k: int, allowed: NDArray[np.int64], late: dict[str, Any]
) -> Matches:
    """Search an index for some of its ids only, whether it can filter or not.

    An index that can is handed the ids. Another one is asked for more and more neighbours, until each query
    has k that are allowed or all rows were asked for: what comes out is the index's own ranking without
    the others, so it is exact where the index is.

    Parameters
    ----------
    index : Index
    queries : (q, d) vectors
    k : int
    allowed : (n,) int64
        Ids that the index holds.
    late : dict
        Late parameters.

    Returns
    -------
    Matches
        ids (q, k) and distances (q, k).
    """
    if index.supports_filter:
        found: Matches = index.search(queries, k, allowed=allowed, **late)
        return found
    held, enough = len(index), min(k, len(allowed))
    wanted = min(held, k + 1)
    if enough:
        # As many as hold k allowed ones if those lie evenly, and some more.
        wanted = min(held, int(1.5 * enough * held / len(allowed)) + k)
    while True:
        found = index.search(queries, max(1, wanted), **late)
        fine = np.isin(found.ids, allowed) & (found.ids >= 0)
        if wanted >= held or not enough or (fine.sum(axis=1) >= enough).all():
            break
        wanted = min(held, 4 * wanted)
    ids = np.full((len(found), k), -1, np.int64)
    distances = np.full((len(found), k), np.inf, np.float32)
    line, column = np.nonzero(fine)
    place = (np.cumsum(fine, axis=1) - 1)[line, column]
    kept = place < k
    ids[line[kept], place[kept]] = found.ids[line[kept], column[kept]]
    distances[line[kept], place[kept]] = found.distances[line[kept], column[kept]]
    return Matches(ids, distances)


# Parsing -----------------------------------------------------------------------------------------


def parse(text: str | Iterable[str]) -> Where:
    """Parse an expression, or several that must all hold.

    Raises
    ------
    ParameterError
        It is none; the text names the column.
    """
    if not isinstance(text, str):
        listed: list[Any] = list(text) if isinstance(text, Iterable) else [text]
        for one in listed:
            if not isinstance(one, str):
                raise ParameterError(
                    f'where: an expression is text, such as "price < 20"; got {one!r:.80}'
                )
        parts = [parse(one) for one in listed]
        if not parts:
            raise ParameterError("where: no expression; such as \"price < 20 and color == 'red'\"")
        if len(parts) == 1:
            return parts[0]
        return _All(parts)
    return Where(text, _Parser(text).whole())


class _All(Where):
    """Several expressions; each tells of its own mistakes."""

    def __init__(self, parts: list[Where]) -> None:
        super().__init__(" and ".join(f"({part.text})" for part in parts), None)
        self._parts = parts

    def mask(self, columns: Columns) -> Mask:
        found: Mask = np.logical_and.reduce([part.mask(columns) for part in self._parts])
        return found


def _wrong(text: str, column: int, message: str) -> ParameterError:
    shown = text if len(text) <= 200 else text[:199] + "…"
    return ParameterError(f"where, column {column}: {message} (in: {' '.join(shown.split())})")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > _LONGEST:
            raise ParameterError(f"where: longer than {_LONGEST:,} characters")
        self._tokens = list(self._split())
        self._at = 0
        self._depth = 0

    def _split(self) -> Iterable[_Token]:
        at = 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                raise _wrong(self._text, start + 1, self._strange(start))
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind) + 1)
            at = match.end()
        yield _Token("end", "", len(self._text) + 1)

    def _strange(self, start: int) -> str:
        rest = self._text[start:]
        for length in (2, 1):
            if rest[:length] in _NEARLY:
                return f"write {_NEARLY[rest[:length]]} for {rest[:length]}"
        if rest[0] in "'\"`":
            return f"the quote {rest[0]} is not closed"
        return f"{rest[0]!r} has no meaning here"

    # The grammar, from the top

    def whole(self) -> Any:
        if self._now.kind == "end":
            self._fail("nothing there; such as price < 20")
        tree = self._either()
        if self._now.kind != "end":
            if self._now.text in (")", "]"):
                self._fail(f"{self._now.text} closes nothing")
            self._fail(f"and, or or the end is expected, not {self._now.text!r}")
        return tree

    def _either(self) -> Any:
        return self._many("or", lambda: self._many("and", self._part))

    def _many(self, word: str, inner: Callable[[], Any]) -> Any:
        parts = [inner()]
        while self._word(word):
            parts.append(inner())
        return parts[0] if len(parts) == 1 else _Many(word, tuple(parts))

    def _part(self) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("nested too deeply")
        try:
            if self._word("not"):
                return _Not(self._part())
            if self._sign("("):
                tree = self._either()
                if not self._sign(")"):
                    self._fail("a ) is missing")
                return tree
            if self._word("has"):
                field = self._field()
                return _Test(field[0], "has", (), field[1])
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Any:
        name, column = self._field()
        sign = self._now
        if sign.kind == "sign" and sign.text in ("==", "!=", *_ORDERED):
            self._at += 1
            value = self._value()
            if isinstance(value, bool) and sign.text in _ORDERED:
                self._fail(f"true and false have no order: == or !=, not {sign.text}", sign.column)
            return _Test(name, sign.text, (value,), column)
        if self._word("contains"):
            return _Test(name, "contains", (self._value(),), column)
        negative = self._word("not")
        if self._word("in"):
            if not self._sign("["):
                self._fail("a list is expected, such as ['red', 'blue']")
            values = [self._value()]
            while self._sign(","):
                values.append(self._value())
            if not self._sign("]"):
                self._fail("a ] is missing")
            inside = _Test(name, "==", tuple(values), column)
            return (
                _Many("and", (_Test(name, "has", (), column), _Not(inside))) if negative else inside
            )
        self._fail("one of < <= > >= == != in contains is expected")
        return None

    def _field(self) -> tuple[str, int]:
        token = self._now
        if token.kind == "name" and token.text.lower() not in _WORDS:
            self._at += 1
            return token.text.strip("`"), token.column
        self._fail("the name of a field is expected, such as price")
        return "", 0

    def _value(self) -> Value:
        token = self._now
        self._at += 1
        if token.kind == "number":
            plain = token.text.lstrip("+-").isdigit() and len(token.text) < 16
            return int(token.text) if plain else float(token.text)
        if token.kind == "text":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1])
        if token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        self._at -= 1
        quoted = f"; text stands in quotes: '{token.text}'" if token.kind == "name" else ""
        self._fail(f"a value is expected, such as 20 or 'red'{quoted}")
        return False

    # Small steps

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _word(self, word: str) -> bool:
        if self._now.kind == "name" and self._now.text.lower() == word:
            self._at += 1
            return True
        return False

    def _sign(self, sign: str) -> bool:
        if self._now.kind == "sign" and self._now.text == sign:
            self._at += 1
            return True
        return False

    def _fail(self, message: str, column: int | None = None) -> None:
        raise _wrong(self._text, self._now.column if column is None else column, message)
