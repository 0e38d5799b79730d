"""YAML 1.2 text to plain data, with the line and column of every key and value.

PyYAML scans, parses and composes; what its nodes mean is decided here, because PyYAML reads
YAML 1.1, where ``no`` is false, ``1:30`` is ninety and ``1e6`` is text. Plain scalars follow the
core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2) with four differences:

* ``100_000`` is a number, as it is in Python and TOML;
* a number written with an exponent is an int where its value is whole (``1e6``, ``1.5e3``), since
  counts are written so and the fields that take them are strict; ``2.0`` stays a float;
* ``010`` is refused: it is 10 in YAML 1.2, 8 in YAML 1.1, and may have been meant as text;
* ``1e400`` is refused rather than read as infinity.

Nothing is ever built but dict, list, str, int, float, bool and None: tags are refused, and aliases
are expanded to copies under a limit, so that a short text cannot fill the memory.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from yaml.composer import Composer
from yaml.error import Mark, MarkedYAMLError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

__all__ = ["MAX_DEPTH", "BadText", "KeyPath", "Place", "Places", "floating", "read", "scalar"]

MAX_DEPTH: Final = 64
"""How deep mappings and lists may nest; the deepest spec that makes sense needs about ten."""

MAX_VALUES: Final = 100_000
"""How many keys and values a text may hold once its aliases are expanded."""

KeyPath: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]
"""Line and column, both from 1."""
Places: TypeAlias = dict[KeyPath, tuple[Place, Place]]
"""Per path, where its key (for a list item: the item) and where its value begins."""
Scalar: TypeAlias = str | int | float | bool | None

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INTEGER = re.compile(rf"[-+]?{_DIGITS}")
_BASED = re.compile(r"0o[0-7]+(?:_[0-7]+)*|0x[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*")
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0_?[0-9]")


class BadText(Exception):
    """What is wrong with a text; it never leaves the package, as `source` makes a SpecError of it.

    Attributes
    ----------
    problems : list of (Place, str)
        In the order of the text, without repetition.
    """

    def __init__(self, *problems: tuple[Place, str]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("; ".join(message for _, message in self.problems))


def read(text: str) -> tuple[Any, Places]:
    """Read one YAML document.

    Parameters
    ----------
    text : str
        The document, decoded.

    Returns
    -------
    data : dict, list, str, int, float, bool or None
        None for an empty text. No two parts of it are the same object.
    places : Places
        For every path in `data`; what an alias repeats has the place where it was written.

    Raises
    ------
    BadText
        With all the problems of meaning, or the first one of syntax.
    """
    composer: _Composer | None = None
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
    except MarkedYAMLError as error:
        raise BadText(_in_words(error)) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        bad = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise BadText(((line, column), bad)) from None
    except (ValueError, OverflowError):
        # PyYAML's scanner gives an escape such as "\UFFFFFFFF" to chr() as it stands.
        at = composer.get_mark() if composer is not None else None
        raise BadText((_place(at), "this escape or number is out of range")) from None
    builder = _Builder()
    data = builder.build(root, ()) if root is not None else None
    if problems := composer.problems + builder.problems:
        raise BadText(*problems)
    return data, builder.places


def scalar(text: str) -> Scalar:
    """Say what a plain (unquoted) scalar means.

    Raises
    ------
    ValueError
        For a number that begins with a surplus 0 or is too large; the text says what to write.

    Examples
    --------
    >>> [scalar(text) for text in ("1e6", "100_000", "0x10", "no", "1:30", "~", "2.0")]
    [1000000, 100000, 16, 'no', '1:30', None, 2.0]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    if not _FLOAT.fullmatch(text):  # every integer is one, too
        return text
    if _LEADING_ZERO.match(text):
        raise ValueError(
            f"{_short(text)} begins with a 0, which some read as octal; "
            "write the number without it, or put it in quotes if it is text"
        )
    if _INTEGER.fullmatch(text):
        try:
            return int(text)
        except ValueError:  # Python's own limit on digits
            raise ValueError(f"a number of {len(text):,} digits is too large") from None
    return floating(text)


def floating(text: str) -> int | float:
    """Read a number that has a point or an exponent; TOML and YAML share this rule.

    Raises
    ------
    ValueError
        If it is finite but larger than a float can hold.
    """
    value = float(text)
    if value in (float("inf"), float("-inf")) and "inf" not in text.lower():
        raise ValueError(f"{_short(text)} is too large for a number; write .inf for infinity")
    # Up to 2^53 floats hold every whole number, so nothing is lost by saying int.
    if "e" in text.lower() and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return value


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML down to nodes: no resolver and no constructor, so a tag can have no effect."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.problems: list[tuple[Place, str]] = []
        self._depth = self._count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        here = _place(event.start_mark)
        if isinstance(event, AliasEvent):
            node = super().compose_node(parent, index)
            if node is not None and node.end_mark is None:  # not closed yet
                raise BadText((here, f"*{event.anchor} stands inside &{event.anchor} itself"))
            return node
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            advice = "a spec holds plain values only; remove it, or put the text in quotes"
            self.problems.append((here, f"the tag {_short(tag)} is refused: {advice}"))
            event.tag = None
        self._count += 1
        if self._count > 2 * MAX_VALUES:  # keys are nodes as well; the builder counts precisely
            raise BadText((here, f"more than {MAX_VALUES:,} values"))
        if self._depth == MAX_DEPTH:
            raise BadText((here, f"nested more than {MAX_DEPTH} levels deep"))
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    """Nodes to plain data; collects problems instead of stopping at the first."""

    def __init__(self) -> None:
        self.places: Places = {}
        self.problems: list[tuple[Place, str]] = []

    def build(self, node: Node, path: KeyPath, key: Place | None = None) -> Any:
        here = _place(node.start_mark)
        # An alias is built anew wherever it stands: counting what is built, not what is written,
        # is the guard against a text whose aliases multiply.
        if len(self.places) == MAX_VALUES:
            raise BadText((here, f"more than {MAX_VALUES:,} values, those of aliases counted"))
        if len(path) > MAX_DEPTH:
            raise BadText((here, f"nested more than {MAX_DEPTH} levels deep"))
        self.places[path] = (key or here, here)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, Place] = {}
        for key_node, value_node in node.value:
            here = _place(key_node.start_mark)
            key = self._key(key_node)
            if key is None:
                continue
            if key in first:
                line, column = first[key]
                again = f"the key {_short(key)} is repeated; it stands first at {line}:{column}"
                self.problems.append((here, again))
                continue
            first[key] = here
            data[key] = self.build(value_node, (*path, key), here)
        return data

    def _key(self, node: Node) -> str | None:
        """Read a key; None, with the problem noted, where it is not text."""
        count = len(self.problems)
        if not isinstance(node, ScalarNode):
            kind = "mapping" if isinstance(node, MappingNode) else "list"
            message = f"a {kind} cannot be a key; keys are text"
        elif node.value == "<<" and node.style is None:
            message = "merge keys (<<) are not in YAML 1.2; write the keys out"
        else:
            key = self._scalar(node)
            if isinstance(key, str) or len(self.problems) > count:
                return key if isinstance(key, str) else None
            message = f"the key {_short(node.value)} is not text; put it in quotes"
            if not node.value:
                message = "the key before ':' is missing"
        self.problems.append((_place(node.start_mark), message))
        return None

    def _scalar(self, node: ScalarNode) -> Scalar:
        try:
            if node.style is None:  # plain: neither quoted nor a block of text
                return scalar(node.value)
            # JSON writes a character above U+FFFF as two escapes; half of a pair is no character.
            return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            message = "an escape from \\ud800 to \\udfff stands alone and is no character"
        except ValueError as error:
            message = str(error)
        self.problems.append((_place(node.start_mark), message))
        return None


def _place(mark: Mark | None) -> Place:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _short(text: str) -> str:
    """Quote a piece of the user's text, on one line and not too long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _in_words(error: MarkedYAMLError) -> tuple[Place, str]:
    """Turn what PyYAML says into what the user did and can do."""
    problem, context = error.problem or "this is not YAML", error.context or ""
    here = _place(error.problem_mark or error.context_mark)
    begun = _place(error.context_mark or error.problem_mark)
    at_begun = f"begun at {begun[0]}:{begun[1]}"
    found = re.search(r"'(.*)'", problem)
    what = found.group(1) if found else ""

    if "cannot start any token" in problem:
        if what == "\\t":
            return here, "a tab stands where YAML allows only spaces; use spaces"
        return here, f"a value cannot begin with {what}; put it in quotes"
    if context in ("while scanning an alias", "while scanning an anchor"):
        sign = "*" if context.endswith("alias") else "&"
        return begun, f"a value that begins with {sign} must be in quotes"
    if "undefined alias" in problem:
        return here, f"*{what} repeats nothing (no &{what} above); if it is text, put it in quotes"
    if "duplicate anchor" in context:
        return here, f"this anchor is repeated; it stands first at {begun[0]}:{begun[1]}"
    if "found another document" in problem:
        return here, "a second document begins here; a spec is one document"
    if "<document start>" in problem:
        return here, "this belongs to no document; a spec is one document, without '...' and '%'"
    if "mapping values are not allowed" in problem:
        advice = "put the text in quotes or the key on its own line, and a space after each ':'"
        return here, f"a ':' cannot stand here; {advice}"
    if "sequence entries are not allowed" in problem:
        return here, "a list item '- ' cannot stand here; put the list on lines of its own"
    if "expected <block end>" in problem:
        kind = "list" if "collection" in context or "sequence" in context else "mapping"
        advice = "indent it like its neighbours, or put text in quotes"
        return here, f"this does not continue the {kind} {at_begun}; {advice}"
    if "expected the node content" in problem:
        return here, f"a key or value is missing before {what!r}"
    if "could not find expected ':'" in problem:
        return begun, "no ':' follows this; write 'key: value', with a space after the colon"
    if context == "while scanning a quoted scalar":
        return begun, "this quote is never closed"
    if context in ("while parsing a flow mapping", "while parsing a flow sequence"):
        kind, bracket = ("mapping", "}") if context.endswith("mapping") else ("list", "]")
        return here, f"',' or '{bracket}' is missing here, in the {kind} {at_begun}"
    if context == "while scanning a double-quoted scalar":
        advice = "write \\\\ for a backslash, or use single quotes"
        return here, f"this backslash begins no known escape; {advice}"
    return here, " ".join(f"{context} {problem}".split())
