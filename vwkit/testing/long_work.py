"""Tests of long work: progress, interruption, going on from a checkpoint, and what is foretold."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from vwkit.errors import Interrupted
from vwkit.estimates import Estimate
from vwkit.jobs import Job, use_job
from vwkit.testing.vector_suite import VectorSuite
from vwkit.types import Array

__all__ = ["LongWork"]

# What is foretold of the disk may be off by this factor, and by so many bytes.
_OFF_BY, _SMALL = 8, 1 << 17
# So much memory is taken for certain by nothing that works on a thousand rows.
_WILD = 1 << 30


class LongWork(VectorSuite, suite=True):
    """The part of the suites about work that takes long."""

    def _work(self, made: Any, seed: int = 1) -> Any:
        """Fit on data that take a few steps."""
        return self._fit(made, self._rows(seed, rows=self._count(90)))

    def _others(self) -> Iterator[tuple[str, Any, Array]]:
        """Yield backends and data whose checkpoints are of no use to `_work`."""
        if not self._domain_is_codes():
            wide = self._dim() + self._step()
            yield "data of another dimension", self._make(), self._rows(1, self._count(90), wide)
        if self._offers("k"):
            found = self._make_or_none(k=7)
            if found is not None:
                yield "another k", found, self._rows(1, rows=self._count(90))

    def test_progress_makes_sense(self) -> None:
        """What is told of progress is no more than the total, and an interruption is heeded.

        If this fails, check the numbers given to ``job().progress``, and for an ``except`` without
        a name, which also takes `Interrupted`: catch ``Exception`` only where that is raised again.
        """
        told: list[tuple[float, float | None, str]] = []

        def note(stage: str, done: int, total: int | None, unit: str, values: Any) -> None:
            told.append((done, total, unit))

        with use_job(Job(threads=1, progress=note)):
            self._work(self._make(**self._on_one_thread()))
        for done, total, unit in told:
            assert done >= 0, f"{done} {unit} of {total} are done"
            assert total is None or done <= total, f"{done} {unit} of {total} are done"
        if len(told) < 3:
            pytest.skip("it tells no progress here")
        count, last, half = itertools.count(1), len(told), len(told) // 2

        def stop(*_: Any) -> None:
            if next(count) == half:
                job.stop.set()

        job = Job(threads=1, progress=stop)
        with use_job(job):
            try:
                self._work(self._make(**self._on_one_thread()))
            except Interrupted:
                return
        assert not job.stop.is_set(), (
            f"it was told to stop at step {half} of {last}, and went on to the end"
        )

    def test_a_fit_that_was_stopped_goes_on(self) -> None:
        """Stopped behind a checkpoint and begun again, it ends as if it had not been stopped.

        In the same bytes where it declares `deterministic`.

        If this fails, check what the state leaves out: the objective so far, the state of a random
        generator (draw anew for each step, from ``[self.seed, step]``), what was counted.
        """
        change = self._on_one_thread()
        with _kept_often(), use_job(Job(threads=1)):
            plain = self._work(self._make(**change))
            expected = self._answer(plain)
            kept = self._checkpoints(change)
            if not kept:
                pytest.skip("it keeps no checkpoints here")
            for stopped in sorted({1, min(2, kept), kept // 2 + 1, kept}):
                with tempfile.TemporaryDirectory() as folder:
                    self._stopped(self._make(**change), stopped, Path(folder))
                    with use_job(Job(threads=1, folder=folder)):
                        fitted = self._work(self._make(**change))
                    why = f"when it goes on behind checkpoint {stopped} of {kept}"
                    self._verify(fitted, self._rows(1, rows=self._count(90)))
                    if plain.deterministic:
                        self._assert_same(expected, self._answer(fitted), True, why)

    def test_foreign_checkpoints_are_not_used(self) -> None:
        """A checkpoint of another k, of other data or of another version is passed over.

        If this fails, check the names, shapes and dtypes of what ``job().resume()`` gives before
        it is used.
        """
        change = self._on_one_thread()
        with _kept_often(), use_job(Job(threads=1)):
            fitted = self._work(self._make(**change))
            expected, exact = self._answer(fitted), fitted.deterministic
            if not self._checkpoints(change):
                pytest.skip("it keeps no checkpoints here")
            with tempfile.TemporaryDirectory() as folder:
                Job(folder=folder).checkpoint(1, {"unheard_of": np.zeros(3)})
                with use_job(Job(threads=1, folder=folder)):
                    found = self._answer(self._work(self._make(**change)))
                self._assert_same(expected, found, exact, "with a checkpoint of other names")
            for name, other, data in self._others():
                with tempfile.TemporaryDirectory() as folder:
                    self._stopped(other, 2, Path(folder), data)
                    with use_job(Job(threads=1, folder=folder)):
                        found = self._answer(self._work(self._make(**change)))
                    self._assert_same(expected, found, exact, f"with a checkpoint of {name}")

    def _checkpoints(self, change: dict[str, Any]) -> int:
        """Return how many checkpoints `_work` keeps."""
        with tempfile.TemporaryDirectory() as folder:
            job = _Stopping(0, Path(folder))
            with use_job(job):
                self._work(self._make(**change))
            return next(job.counter) - 1

    def _stopped(self, made: Any, behind: int, folder: Path, data: Any = None) -> None:
        """Fit until behind a checkpoint of that number, and no further."""
        with use_job(_Stopping(behind, folder)):
            try:
                if data is None:
                    self._work(made)
                else:
                    self._fit(made, data)
            except Interrupted:
                return

    def test_what_is_foretold(self) -> None:
        """`_estimate` and `_row_work` give numbers that `vwkit plan` can count with.

        They are finite and not negative; work and bytes on the disk do not shrink when rows are
        added, and bytes of a thousand rows are roughly what they are.

        If this fails, check that the estimate is of what is given, (rows, dim) numbers, before
        anything is fitted; work is in units of your own, the others are bytes.
        """
        made = self._make()
        data = self._rows(1, self._count(1000), None if self._domain_is_codes() else self._dim(16))
        dim, itemsize = data.shape[1], data.itemsize
        work = made._row_work(dim)
        assert _is_number(work), f"_row_work gave {work!r}; a number of at least 0 is needed"
        before: Estimate | None = None
        for rows in (1, 100, 10_000, 10**6, 10**9):
            found = made._estimate(rows, dim, itemsize)
            if found is None:
                return
            assert isinstance(found, Estimate), (
                f"_estimate gave {type(found).__name__}; a vwkit.estimates.Estimate or None is needed"
            )
            for name, value in dataclasses.asdict(found).items():
                good = value is None or _is_number(value)
                assert good, f"_estimate({rows:,}, {dim}, {itemsize}).{name} is {value!r}"
            if before is not None:
                for name, less, more in (
                    ("work", before.total(), found.total()),
                    ("disk", before.disk, found.disk),
                ):
                    assert (more or 0) >= (less or 0), (
                        f"_estimate: {name} shrinks to {more:,} for {rows:,} rows"
                    )
            before = found
        self._check_foretold(made, data)

    def _check_foretold(self, made: Any, data: Array) -> None:
        """Compare what is foretold of a thousand rows with what is measured."""
        __tracebackhide__ = True
        with use_job(Job(threads=1)):
            foretold = made._estimate(len(data), data.shape[1], data.itemsize)
            tracemalloc.start()
            try:
                fitted = self._fit(made, data)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        with tempfile.TemporaryDirectory() as folder:
            fitted.save(Path(folder) / "saved")
            disk = sum(one.stat().st_size for one in Path(folder).rglob("*") if one.is_file())
        what = f"of {len(data):,} rows of {data.shape[1]} numbers"
        if foretold.disk is not None:
            least, most = disk / _OFF_BY - _SMALL, disk * _OFF_BY + _SMALL
            assert least <= foretold.disk <= most, (
                f"_estimate foretells {foretold.disk:,.0f} bytes on the disk {what}; they take {disk:,}"
            )
        for name in ("memory", "least"):
            value = getattr(foretold, name) or 0
            assert value <= _WILD + _OFF_BY * peak, (
                f"_estimate foretells {value:,.0f} bytes of memory ({name}) {what}"
            )
        if foretold.memory is not None:
            assert peak <= _OFF_BY * foretold.memory + 32 * _SMALL, (
                f"_estimate foretells {foretold.memory:,.0f} bytes of memory {what}; Python alone "
                f"took {peak:,}"
            )


class _Stopping(Job):
    """Stops behind the checkpoint of a number, in whatever part of the work; 0 is never."""

    def __init__(self, behind: int, folder: Path) -> None:
        super().__init__(threads=1, folder=folder)
        self.behind, self.counter = behind, itertools.count(1)

    def checkpoint(self, step: int, arrays: Any) -> None:
        super().checkpoint(step, arrays)
        if next(self.counter) == self.behind:
            raise Interrupted("stopped by the conformance suite")

    def within(self, stage: str, folder: Path | None = None) -> Job:
        part = super().within(stage, folder)
        if part.folder is None:
            return part
        inner = _Stopping(self.behind, part.folder)
        inner.counter, inner.stage = self.counter, part.stage
        return inner


@contextmanager
def _kept_often() -> Iterator[None]:
    """Let every checkpoint be written, however little time has gone since the last."""
    with mock.patch("vwkit.jobs._CHECKPOINT_SHARE", 0):
        yield


def _is_number(value: Any) -> bool:
    """Tell whether it is finite and not negative."""
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return plain and math.isfinite(value) and value >= 0
