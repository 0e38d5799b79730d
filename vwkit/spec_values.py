"""Values in a spec, one by one: each is what it must be, or a problem is noted."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vwkit.errors import Problem, dotted
from vwkit.rules import KeyPath
from vwkit.source import Source

__all__ = ["Values"]


class Values:
    """Reads values, and gathers the problems of all of them.

    Attributes
    ----------
    source : Source
        Where each key was written, and what paths are relative to.
    problems : list of Problem
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def lines(self) -> list[str]:
        """Return one line for each problem, in the order of the places."""
        found = []
        for problem in self.problems:
            where = self.source.where(problem.path)
            text = " ".join(str(problem).split("\n"))
            if where == f"--set {dotted(problem.path)}":
                text = " ".join(problem.message.split("\n"))  # the place is the path
            found.append((self._order(problem.path), f"{where}: {text}" if where else text))
        return [line for _, line in sorted(found, key=lambda one: one[0])]

    def _order(self, path: KeyPath) -> tuple[int, int]:
        place = re.search(r":(\d+):(\d+)$", self.source.where(path))
        return (int(place[1]), int(place[2])) if place else (1 << 30, 0)

    def problem(self, path: KeyPath, message: str) -> None:
        """Note one."""
        self.problems.append(Problem(path, message))

    def mapping(self, path: KeyPath, value: Any, what: str) -> bool:
        """Tell whether a value is a mapping."""
        if isinstance(value, Mapping):
            return True
        self.problem(path, f"{what} is needed; got {value!r}")
        return False

    def unknown_keys(
        self, path: KeyPath, value: Mapping[str, Any], known: tuple[str, ...], who: Any
    ) -> None:
        """Note keys that nobody knows, with the nearest that is known."""
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                self.problem((*path, key), f"{who} has no such key; {hint}")

    def text(
        self, path: KeyPath, value: Mapping[str, Any], key: str, default: str | None
    ) -> str | None:
        """Read the name of a field."""
        given = value.get(key, default)
        if given is None or (isinstance(given, str) and given):
            return given
        self.problem((*path, key), f"must be the name of a field; got {given!r}")
        return default

    def texts(self, path: KeyPath, value: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
        """Read a list of names of fields."""
        given = value.get(key)
        if given is None:
            return None
        if isinstance(given, list) and all(isinstance(one, str) and one for one in given):
            return tuple(given)
        self.problem(
            (*path, key), f"must be a list of fields such as [title, price]; got {given!r}"
        )
        return None

    def whole(
        self,
        path: KeyPath,
        value: Mapping[str, Any],
        key: str,
        default: int | None,
        least: int = 0,
        most: int | None = None,
    ) -> int | None:
        """Read a whole number between limits."""
        given = value.get(key, default)
        if given is None or (
            type(given) is int and given >= least and (most is None or given <= most)
        ):
            return given
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        self.problem((*path, key), f"must be a whole number {allowed}; got {given!r}")
        return default

    def path(
        self,
        path: KeyPath,
        value: Mapping[str, Any],
        key: str,
        *,
        must_exist: bool,
        required: bool = True,
    ) -> Path | None:
        """Read a path, made absolute."""
        given = value.get(key)
        if given is None:
            if required:
                self.problem(path, f"needs {key}")
            return None
        if not isinstance(given, (str, Path)) or not str(given):
            self.problem((*path, key), f"must be a path; got {given!r}")
            return None
        found = self.absolute((*path, key), str(given))
        try:
            there = not must_exist or found.exists()
        except OSError as error:  # a name that is too long, say
            self.problem((*path, key), f"{found} cannot be a path here: {error.strerror}")
            return None
        if not there:
            self.problem((*path, key), f"no such file or folder: {found}")
            return None
        return found

    def absolute(self, path: KeyPath, given: str) -> Path:
        """Return a path that is relative to what the key was written in."""
        return Path(os.path.abspath(self.source.base_of(path) / Path(given).expanduser()))
