"""Spec text to a tree of plain data that remembers where each key stood.

The first stage of reading a spec: `load` and `parse` know files, YAML and TOML, and nothing of
slots or backends. Later stages ask `Source.where` for the place of whatever they find wrong.

What YAML scalars mean is told in `vwkit._yaml12`, how TOML positions are found in `vwkit._toml`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from vwkit import _toml, _yaml12
from vwkit._yaml12 import MAX_DEPTH, BadText, KeyPath, Places
from vwkit.errors import ParameterError, SpecError, dotted

__all__ = ["MAX_BYTES", "Source", "from_dict", "load", "override", "parse"]

MAX_BYTES: Final = 1 << 20
"""The largest spec file that is read; data belong in files that a spec names."""

_FORMATS: Final[dict[str, Literal["yaml", "toml"]]] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
}
_NEEDED = (
    "a spec needs `vwkit: 1`, then `images` or `vectors`, then what to make of them, such as "
    "`clusterer` and `output`"
)
_ASSIGNMENT = re.compile(r"[^\s.=\[\]]+(?:\.[^\s.=\[\]]+|\[[0-9]{1,6}\])*")
_STEP = re.compile(r"\[([0-9]+)\]|([^.\[\]]+)")


@dataclass(frozen=True)
class Source:
    """A spec as it was written: plain data and where each part of it stands.

    Attributes
    ----------
    name : str
        How messages call the file: its path as it was given; "" for a dict.
    base : Path
        The folder that relative paths in the spec count from; see also `base_of`.
    data : dict of str to Any
        dict, list, str, int, float, bool and None only. No part is shared with another.
    places : dict
        Per path, line and column (from 1) of key and value; empty for a dict.
    overrides : dict
        Per path that `override` wrote, the option that did, such as ``--set clusterer.k``.
    """

    name: str
    base: Path
    data: dict[str, Any]
    places: Places = field(default_factory=dict, repr=False)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath, key: bool = True) -> str:
        """Say where the entry at `path` stands, for the front of a message.

        Parameters
        ----------
        path : tuple of str or int
            Keys and list positions from the top down. Where it leads nowhere (a missing key), the
            nearest entry above it is meant.
        key : bool
            Whether the key of a mapping's entry is meant, or (False) its value. A list item has
            one place only, and so has the whole spec, ``()``.

        Returns
        -------
        str
            ``spec.yaml:6:25``; ``--set clusterer.k`` for what `override` wrote; "" for a dict.
        """
        path = tuple(path)
        for length in range(len(path), -1, -1):
            part = path[:length]
            if part in self.overrides:
                return self.overrides[part]
            if part in self.places:
                line, column = self.places[part][0 if key or length < len(path) else 1]
                return f"{self.name}:{line}:{column}"
        return ""

    def base_of(self, path: KeyPath) -> Path:
        """Give the folder that a relative file name at `path` counts from.

        That is `base`, but the working directory for what `override` wrote: what is typed in a
        shell is relative to where it is typed.
        """
        path = tuple(path)
        typed = any(path[:length] in self.overrides for length in range(1, len(path) + 1))
        return Path() if typed else self.base


def load(path: str | os.PathLike[str]) -> Source:
    """Read a spec file, ``.yaml``, ``.yml`` or ``.toml``.

    Raises
    ------
    SpecError
        If there is no such file, its ending is another, it is larger than `MAX_BYTES`, not UTF-8,
        or not a spec's text (see `parse`).
    """
    file = Path(path)
    name = os.fspath(path)
    form = _FORMATS.get(file.suffix.lower())
    if form is None:
        ending = repr(file.suffix) if file.suffix else "nothing"
        allowed = ", ".join(_FORMATS)
        raise SpecError(f"{name}: ends in {ending}; a spec file ends in one of {allowed}")
    try:
        if not file.exists():
            raise SpecError(f"no such file: {name}")
        if not file.is_file():  # a folder, or a pipe that might never end
            raise SpecError(f"{name}: not a file")
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{name}: cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"{name}: larger than 1 MiB, the most a spec may have; is it one?")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        at = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        wrong = f"the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise SpecError(f"{name}:{at}: {wrong}") from None
    return parse(text, name, format=form, base=file.parent)


def parse(text: str, name: str, *, format: Literal["yaml", "toml"], base: Path) -> Source:
    """Read the text of a spec.

    Parameters
    ----------
    text : str
        One YAML or TOML document, a mapping.
    name : str
        How messages call it.
    format : {"yaml", "toml"}
        YAML means 1.2: ``1e6`` is the int 1000000, ``no`` and dates are strings.
    base : Path
        The folder that relative paths in it count from.

    Raises
    ------
    SpecError
        ``name:line:column: what is wrong``: the first error of syntax; or all repeated keys, keys
        that are not strings, tags, and numbers that cannot be taken, a line each. Also for an
        empty text, one that is no mapping, or one that expands or nests beyond reason.
    """
    readers = {"yaml": _yaml12.read, "toml": _toml.read}
    if format not in readers:
        raise ParameterError(f"format is {format!r}; allowed are 'yaml' and 'toml'")
    try:
        # Some editors begin a UTF-8 file with a byte order mark.
        data, places = readers[format](text.removeprefix("\ufeff"))
    except BadText as error:
        lines = [f"{name}:{line}:{column}: {m}" for (line, column), m in error.problems]
        raise SpecError("\n".join(lines)) from None
    if data is None or data == {}:
        raise SpecError(f"{name}:1:1: the spec is empty; {_NEEDED}")
    if not isinstance(data, dict):
        line, column = places[()][1]
        raise SpecError(f"{name}:{line}:{column}: this is {_kind(data)}, no mapping; {_NEEDED}")
    return Source(name, base, data, places)


def from_dict(data: Mapping[str, Any], base: Path) -> Source:
    """Take a spec from Python.

    Parameters
    ----------
    data : Mapping
        Of mappings with string keys, lists or tuples (which become lists), str, int, float, bool
        and None. It is copied.
    base : Path
        The folder that relative paths in it count from.

    Raises
    ------
    SpecError
        With a line for everything in it that is not plain data.
    """
    problems: list[str] = []
    copied = _plain(data, (), problems)
    if not isinstance(copied, dict):
        problems = problems or [f"a spec is a mapping, not {_kind(copied)}"]
    if problems:
        raise SpecError("\n".join(problem.replace("\n", "\\n") for problem in problems))
    return Source("", base, copied)


def override(source: Source, assignments: Sequence[str]) -> Source:
    """Change single entries of a spec, as ``--set`` does.

    Parameters
    ----------
    source : Source
        The spec; it stays as it is.
    assignments : sequence of str
        Each ``path=value``, later ones on top of earlier ones: ``clusterer.k=4096``,
        ``output[1].path=x``, ``transform[0]={use: pca, dim: 32}``. A value that begins with
        ``[``, ``{`` or a quote is YAML; any other is one plain scalar to its end, so
        ``images.pattern=**/*.jpg`` and ``path=a: b`` need no further quotes. Nothing after ``=``
        means null. Missing keys are created in mappings; list items must exist.

    Raises
    ------
    SpecError
        With a line for each assignment that cannot be made, ``--set clusterer.k=x: why``.
    """
    if isinstance(assignments, str):
        raise ParameterError("assignments is one string; give a list of strings")
    data = _plain(source.data, (), [])
    places, overrides = dict(source.places), dict(source.overrides)
    problems = []
    for assignment in assignments:
        try:
            path, value = _read_assignment(assignment)
            created = _assign(data, path, value)
        except SpecError as error:
            shown = assignment if len(assignment) <= 80 else assignment[:77] + "..."
            problems.append(f"--set {shown}: {error}".replace("\n", "\\n"))
            continue
        # What stood at or below the path is gone, and its place with it.
        places = {p: at for p, at in places.items() if p[:created] != path[:created]}
        overrides = {p: by for p, by in overrides.items() if p[:created] != path[:created]}
        for length in range(created, len(path) + 1):
            overrides[path[:length]] = f"--set {dotted(path)}"
    if problems:
        raise SpecError("\n".join(problems))
    return replace(source, data=data, places=places, overrides=overrides)


def _read_assignment(assignment: str) -> tuple[KeyPath, Any]:
    """Split ``path=value``; a SpecError says what is wrong with it."""
    left, equals, right = assignment.partition("=")
    left, right = left.strip(), right.strip()
    if not equals or not _ASSIGNMENT.fullmatch(left):
        raise SpecError("write it as key.path=value, such as clusterer.k=4096 or output[0].path=x")
    path = tuple(int(i) if i else key for i, key in _STEP.findall(left))
    if len(path) > MAX_DEPTH:
        raise SpecError(f"nested more than {MAX_DEPTH} levels deep")
    if not right.startswith(("[", "{", '"', "'")):
        try:
            return path, _yaml12.scalar(right)
        except ValueError as error:
            raise SpecError(str(error)) from None
    try:
        value, _ = _yaml12.read(right)
    except BadText as error:
        raise SpecError(f"{error}; put the value in quotes if it is text") from None
    if right[0] in "\"'" and not isinstance(value, str):
        raise SpecError("text follows the closing quote")
    return path, value


def _assign(data: dict[str, Any], path: KeyPath, value: Any) -> int:
    """Write `value` at `path`; return the length of the shortest part of `path` that is new."""
    inner: Any = data
    created = len(path)
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        above = dotted(path[:depth])
        if isinstance(step, int):
            if not isinstance(inner, list):
                raise SpecError(f"{above} is {_kind(inner)}, so it has no [{step}]")
            if step >= len(inner):
                raise SpecError(
                    f"{above} holds {len(inner)}, counted from 0, so it has no [{step}]"
                )
        elif isinstance(inner, list):
            hint = f"{above}[0].{step}"
            raise SpecError(f"{above} is a list; say which item, such as {hint}")
        elif not isinstance(inner, dict):
            raise SpecError(f"{above} is {_kind(inner)}, so it has no {step}")
        if last:
            inner[step] = value
        elif isinstance(step, int):
            inner = inner[step]
        else:
            if inner.get(step) is None and isinstance(path[depth + 1], str):
                inner[step] = {}
                created = min(created, depth + 1)
            elif step not in inner:
                raise SpecError(f"{dotted(path[: depth + 1])} is missing, so it has no items")
            inner = inner[step]
    return created


def _plain(value: Any, path: KeyPath, problems: list[str]) -> Any:
    """Copy plain data; note in `problems` whatever else there is."""
    at = f"{dotted(path)}: " if path else ""
    if len(path) > MAX_DEPTH:  # or it contains itself
        raise SpecError(f"{dotted(path[:3])}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        problems += [
            f"{at}the key {key!r} is {_kind(key)}; keys are strings"
            for key in value
            if not isinstance(key, str)
        ]
        return {
            str.__str__(key): _plain(item, (*path, key), problems)
            for key, item in value.items()
            if isinstance(key, str)
        }
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, i), problems) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (an enum's member, numpy.float64) are brought down to the plain type.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    allowed = "dict, list, str, int, float, bool and None"
    problems.append(f"{at}{_kind(value)} is not plain data; allowed are {allowed}")
    return None


def _kind(value: Any) -> str:
    """Name the kind of a value in plain words."""
    kinds: dict[type, str] = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return kinds.get(type(value), f"a {type(value).__module__}.{type(value).__qualname__}")
