"""The short report of ``vwkit conformance``: what is wrong, on which data, and what to check.

One fault usually fails many tests. Failures that say the same are told once, with the test that is
most about them, and the others are only named.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import vwkit

__all__ = ["Failure", "ShortReport", "what_to_check"]

_OURS = Path(vwkit.__file__).parent
_WIDTH = 96
_LINES = 8
_WARNINGS = 5
_NAMED = 4
_NUMBER = re.compile(r"[-+]?\d[\d.]*(e[-+]?\d+)?|\b(inf|nan)\b")


class Failure(NamedTuple):
    """Why one test failed.

    Attributes
    ----------
    test : str
        Its name.
    message : str
        What the exception says, without pytest's own explanation.
    given : str
        The generated example, or "".
    place : str
        Where in the author's own code it happened, or "".
    check : str
        The last paragraph of the test's docstring.
    """

    test: str
    message: str
    given: str
    place: str
    check: str

    @property
    def kind(self) -> str:
        """The same for two failures that differ in numbers only."""
        words = _NUMBER.sub("#", self.message.partition("\n")[0])
        # Which query it was, and of how many, says nothing of the reason.
        return re.sub(r"\(#.*?\)", "", words) + self.place


def what_to_check(test: Any) -> str:
    """Return the last paragraph of a test's docstring: "If this fails, check …"."""
    paragraphs = inspect.cleandoc(getattr(test, "__doc__", "") or "").split("\n\n")
    return " ".join(paragraphs[-1].split()).replace("``", "`")


class ShortReport:
    """A plugin for pytest that tells failures as an author needs them.

    Parameters
    ----------
    order : sequence of str
        Test names; of several failures of one kind, the test that comes first is shown.
    """

    def __init__(self, order: Sequence[str]) -> None:
        self._order = {name: place for place, name in enumerate(order)}
        self._failures: list[Failure] = []
        self._warnings: dict[str, None] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        """Keep what a failure says."""
        report = yield
        if report.failed and call.excinfo is not None:
            self._failures.append(_failure(item, call.excinfo.value))
        elif report.failed:  # an expected failure that passed has no exception
            said = str(report.longrepr)
            self._failures.append(Failure(item.name, said, "", "", "take it out"))
        return report

    def pytest_warning_recorded(self, warning_message: Any) -> None:
        """Keep a warning of the author's own code: it often names the line."""
        path = Path(warning_message.filename)
        if _is_theirs(path):
            name = warning_message.category.__name__
            text = f"{path.name}:{warning_message.lineno}: {name}: {warning_message.message}"
            self._warnings[text] = None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the report."""
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> list[str]:
        """Return the report."""
        kinds: dict[str, list[Failure]] = {}
        for one in sorted(self._failures, key=lambda one: self._order.get(one.test, 999)):
            kinds.setdefault(one.kind, []).append(one)
        lines = []
        for first, *others in kinds.values():
            lines += ["", *_paragraph(first, [one.test for one in others])]
        if lines and self._warnings:
            lines += ["", "warnings of its own code:"]
            lines += [f"  {text}" for text in list(self._warnings)[:_WARNINGS]]
        return [*lines, ""] if lines else []


def _failure(item: Any, error: BaseException) -> Failure:
    message, notes = str(error), list(getattr(error, "__notes__", []))
    # What pytest adds to a plain assertion of ours says nothing to the author.
    message = re.split(r"\n(?:assert | \+ |\s*\+  where)", message)[0].strip()
    ours = isinstance(error, (AssertionError, pytest.fail.Exception))
    if not ours or not message:
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    given = next((note for note in notes if "test case" in note or "example" in note), "")
    name = getattr(item, "originalname", item.name)
    # An error of vwkit itself says already what to do.
    check = "" if isinstance(error, vwkit.VwkitError) else what_to_check(item.function)
    return Failure(name, message, _example(given), _place(error), check)


def _example(note: str) -> str:
    """Return the arguments of a generated example in one line."""
    inner = note.partition("(")[2].rpartition(")")[0]
    lines = [line.strip() for line in inner.splitlines()]
    kept = [line for line in lines if line and not line.startswith("self=")]
    return " ".join(kept).rstrip(",")


def _place(error: BaseException) -> str:
    """Return the innermost line of the author's own code, where the error came through it."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if _is_theirs(path):
            return f"{path.name}:{frame.lineno} in {frame.name}: {frame.line}"
    return ""


def _is_theirs(path: Path) -> bool:
    """Tell whether code is neither vwkit's nor that of a library or of the interpreter."""
    parts = path.parts
    installed = {"site-packages", "dist-packages"} & set(parts)
    library = any(re.fullmatch(r"python3\.\d+\w*", part) for part in parts) and not installed
    known = any(part in ("_pytest", "pluggy", "hypothesis", "numpy", "scipy") for part in parts)
    # A test of vwkit's own lies beside the package, as a plugin of its own does.
    return not (_OURS in path.parents or library or known or str(path).startswith("<"))


def _paragraph(first: Failure, others: Sequence[str]) -> list[str]:
    more = ""
    if others:
        named = ", ".join(others[:_NAMED]) + (", …" if len(others) > _NAMED else "")
        more = f" and {len(others)} more: {named}"
    lines = textwrap.wrap(f"{first.test}{more}", _WIDTH, subsequent_indent="  ")
    shown = first.message.splitlines()
    if len(shown) > _LINES:  # the last lines of a traceback are the ones that say it
        shown = [shown[0], "…", *shown[2 - _LINES :]]
    for line in shown:
        lines += textwrap.wrap(line, _WIDTH, initial_indent="  ", subsequent_indent="  ") or [""]
    for label, text in (("at", first.place), ("given", first.given), ("check", first.check)):
        if text:
            text = text.removeprefix("If this fails, check ")
            indent = " " * 10
            lines += textwrap.wrap(f"  {label:<8}{text}", _WIDTH, subsequent_indent=indent)
    return lines
