"""Progress: bars with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

from vwkit.observing.rates import Rate

__all__ = ["Reporter", "logs_shown", "reporter"]

_LINE_EVERY = 10.0


class Reporter(Protocol):
    """Told of every step of a run."""

    def __call__(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        """Take note of a step."""
        ...

    def say(self, text: str) -> None:
        """Show a line that is no step."""
        ...

    def __enter__(self) -> Reporter:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing."""
        ...


def reporter(*, quiet: bool = False) -> Reporter:
    """Return what fits where we run: silence, bars or lines."""
    if quiet:
        return _Silence()
    return _Bars() if sys.stderr.isatty() else _Lines()


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _values(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:,.6g}" for name, value in values.items())


@contextlib.contextmanager
def logs_shown(shown: Reporter | None = None) -> Iterator[None]:
    """Show what vwkit and its plugins log, from INFO on, between the lines of progress if there are."""
    logger = logging.getLogger("vwkit")
    handler = logging.StreamHandler() if shown is None else _Handler(shown)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(before, logging.INFO) if before else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Handler(logging.Handler):
    def __init__(self, shown: Reporter) -> None:
        super().__init__(logging.INFO)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        self._shown.say(self.format(record))


class _Silence:
    def __call__(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Lines(_Silence):
    """A line when a stage begins, and one every ten seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._said = time.monotonic()
        self._rate = Rate(self._said)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def __call__(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._said, self._rate = stage, now, Rate(now)
            print(f"{stage} …", file=sys.stderr, flush=True)
        if not unit and "resumed" in values:
            self._rate.resumed(now)
            print(f"{stage}: goes on at step {values['resumed']:,.0f}", file=sys.stderr, flush=True)
            return
        self._rate.told(done, total, now)
        if now - self._said < _LINE_EVERY or not done:
            return
        self._said = now
        rate, seconds = self._rate.now(), self._rate.seconds_left()
        fast = "" if rate is None else f", {_number(rate)} {unit}/s"
        left = "" if seconds is None else f", {seconds:,.0f} s left"
        whole = f" of {total:,}" if total else ""
        said = f", {_values(values)}" if values else ""
        print(f"{stage}: {done:,}{whole} {unit}{fast}{left}{said}", file=sys.stderr, flush=True)


class _Bars(_Silence):
    """One bar per stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        def fixed(width: int) -> Column:
            return Column(no_wrap=True, min_width=width)

        console = Console(stderr=True)
        # Where it is narrow, what is least needed goes first: the values, then the bar.
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", table_column=fixed(12)),
            TextColumn("{task.percentage:>3.0f}%", table_column=fixed(4)),
            TimeRemainingColumn(table_column=fixed(7)),
            TextColumn("{task.fields[rate]}", table_column=fixed(16)),
        ]
        if console.width >= 60:
            columns.insert(1, BarColumn(bar_width=min(24, max(8, console.width // 6))))
        if console.width >= 70:
            shown = Column(no_wrap=True, overflow="ellipsis")
            columns.append(TextColumn("{task.fields[values]}", table_column=shown))
        self._progress = Progress(*columns, console=console, refresh_per_second=8)
        self._tasks: dict[str, Any] = {}
        self._rates: dict[str, Rate] = {}
        self._last: str | None = None

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._finish()
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def _finish(self) -> None:
        if self._last is not None:
            task = self._tasks[self._last]
            total = self._progress.tasks[task].total or 1
            self._progress.update(task, total=total, completed=total)

    def __call__(
        self, stage: str, done: int, total: int | None, unit: str, values: dict[str, float]
    ) -> None:
        if stage != self._last:
            self._finish()
            self._last = stage
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=None, rate="", values="")
            self._rates[stage] = Rate(time.monotonic())
        if not unit and "resumed" in values:
            self._rates[stage].resumed(time.monotonic())
            return
        self._rates[stage].told(done, total, time.monotonic())
        now = self._rates[stage].now()
        rate = "" if now is None else f"{_number(now)} {unit}/s"
        self._progress.update(
            self._tasks[stage], completed=done, total=total, rate=rate, values=_values(values)
        )
