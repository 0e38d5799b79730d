"""A target: the function that reads hostile bytes, what it begins from, and what it may answer."""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Case", "Target", "Wrong", "judge", "named", "target", "targets"]

#: The modules that hold targets, and the libraries that they need besides vwkit.
MODULES = (
    "files",
    "texts",
    "parsing",
    "saved",
    "trees",
    "folders",
    "runs",
    "pictures",
    "web",
    "servers",
)

#: A case that takes longer hangs: the inputs are small.
SECONDS = 5.0
#: A case whose process grows by more uses too much memory.
GROWTH = 256 << 20
#: Address space that a target's process may take beyond what it has at its beginning.
SPACE = 2 << 30

_LONGEST_TEXT = 4000

Run = Callable[[bytes, Path], None]


class Wrong(Exception):
    """An answer that no exception shows: a file where none should be, an unclear message."""


@dataclass(frozen=True)
class Target:
    """One reader of untrusted bytes.

    Attributes
    ----------
    name : str
    run : callable
        Takes the bytes and an empty folder of its own; it raises only what vwkit raises.
    seeds : callable
        Takes an empty folder; returns valid inputs.
    words : tuple of bytes
        What mutations put in besides numbers.
    cheap : bool
        Whether some thousands of cases pass in a second.
    largest : int
        Bytes of a case.
    needs : tuple of str
        Modules without which there is nothing to test.
    guided : bool
        Whether the coverage of Python code can lead the way (else most of the work is native).
    """

    name: str
    run: Run
    seeds: Callable[[Path], list[bytes]]
    words: tuple[bytes, ...] = ()
    cheap: bool = True
    largest: int = 1 << 14
    needs: tuple[str, ...] = ()
    guided: bool = True

    def missing(self) -> str | None:
        """Return the module that is not installed."""
        for name in self.needs:
            try:
                importlib.import_module(name)
            except ImportError:
                return name
        return None


_known: dict[str, Target] = {}


def target(name: str, seeds: Callable[[Path], list[bytes]], **options: Any) -> Callable[[Run], Run]:
    """Register a function of bytes and a folder as a target."""

    def register(run: Run) -> Run:
        _known[name] = Target(name, run, seeds, **options)
        return run

    return register


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    for name in MODULES:
        importlib.import_module(f"benchmarks.fuzzing.{name}")
    return dict(_known)


def named(name: str) -> Target:
    """Return one target."""
    return targets()[name]


class Case:
    """Runs cases of one target in a folder that is emptied between them."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target = target
        self.folder = folder

    def __call__(self, data: bytes) -> None:
        """Run one case.

        Raises
        ------
        Exception
            What vwkit must not raise.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            judge(lambda: self.target.run(data, self.folder))
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def judge(run: Callable[[], None]) -> None:
    """Let only answers through that are promised: vwkit's own errors, in one clear line each."""
    from vwkit.errors import Interrupted, VwkitError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run()
        except Interrupted:
            raise
        except VwkitError as error:
            _judge_text(error)


def _judge_text(error: Exception) -> None:
    from vwkit.cli.main import _line
    from vwkit.errors import SpecError

    text, shown = str(error), _line(error)  # as the command line shows it
    lines = shown.split("\n") if isinstance(error, SpecError) else [shown]
    if not text.strip():
        raise Wrong(f"{type(error).__name__} without a word") from error
    if "\n" in text and not isinstance(error, SpecError):
        raise Wrong(f"{type(error).__name__} of several lines") from error
    if max(map(len, lines)) > _LONGEST_TEXT:
        raise Wrong(f"{type(error).__name__} of {len(shown)} characters") from error
    if any(not one.isprintable() for one in lines):
        odd = next(c for one in lines for c in one if not c.isprintable())
        raise Wrong(f"{type(error).__name__} holds the sign {odd!r}") from error
