"""Backends with one fault each in long work: progress, interruption, checkpoints, estimates."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from tests.suite.faults import fault
from tests.suite.right_long_work import Patient
from vwkit.testing import ClustererTests

FAULTS = []
wrong = partial(fault, FAULTS, ClustererTests)


@wrong("test_progress_makes_sense", "31 iterations of 30 are done")
class CountsFromOne(Patient):
    """Tells one iteration more than there are."""

    def _tell(self, job, done):
        job.progress(done + 1, self.iterations, "iterations")


@wrong("test_progress_makes_sense", "-1 iterations of 30 are done")
class CountsFromBelow(Patient):
    """Tells of the iteration before."""

    def _tell(self, job, done):
        job.progress(done - 1, self.iterations, "iterations")


@wrong("test_progress_makes_sense", "told to stop at step 15 of 31, and went on")
class GoesOn(Patient):
    """Takes an interruption for a bar that cannot be shown."""

    def _tell(self, job, done):
        try:
            super()._tell(job, done)
        except BaseException:
            return


@wrong("test_a_fit_that_was_stopped_goes_on", "objective when it goes on behind checkpoint")
class ForgetsObjective(Patient):
    """Keeps the centers only."""

    def _kept(self, centers, objective):
        return {"centers": centers, "objective": np.array(objective[-1:])}


@wrong("test_a_fit_that_was_stopped_goes_on", "when it goes on behind checkpoint")
class KeepsRounded(Patient):
    """Keeps the centers in half precision, to save room."""

    def _kept(self, centers, objective):
        return super()._kept(centers.astype(np.float16), objective)


@wrong("test_a_fit_that_was_stopped_goes_on", "when it goes on behind checkpoint")
class KeepsTheStart(Patient):
    """Keeps the centers that the iteration began with."""

    def _kept(self, centers, objective):
        before, self._before = self.__dict__.get("_before", centers), centers
        return super()._kept(before, objective)

    def _state(self):
        return {name: value for name, value in super()._state().items() if name != "_before"}


@wrong("test_foreign_checkpoints_are_not_used", "KeyError|centers")
class TakesAnyNames(Patient):
    """Does not look whether the checkpoint is one of its own."""

    def _fits(self, state, centers):
        return state["centers"].shape == centers.shape


@wrong(
    "test_foreign_checkpoints_are_not_used", "with a checkpoint of|columns|shape|broadcast|match"
)
class TakesAnyShape(Patient):
    """Goes on from centers of another k."""

    def _fits(self, state, centers):
        return "centers" in state and "objective" in state


@wrong("test_what_is_foretold", "_estimate gave int; a vwkit.estimates.Estimate or None is needed")
class ForetellsBytes(Patient):
    """Returns a number of bytes."""

    def _estimate(self, rows, dim, itemsize):
        return rows * dim * itemsize


@wrong("test_what_is_foretold", r"work is nan|work is inf|each_pass is -")
class ForetellsLess(Patient):
    """Overflows in 64 bits."""

    def _estimate(self, rows, dim, itemsize):
        found = super()._estimate(rows, dim, itemsize)
        with np.errstate(all="ignore"):
            passes = np.int64(rows) * np.int64(dim) * np.int64(1 << 40)
        return dataclasses.replace(found, each_pass=int(passes))


@wrong("test_what_is_foretold", "work shrinks to")
class ForetellsPerRow(Patient):
    """Divides by the rows."""

    def _estimate(self, rows, dim, itemsize):
        return dataclasses.replace(super()._estimate(rows, dim, itemsize), each_pass=1 / rows)


@wrong("test_what_is_foretold", "bytes on the disk of")
class ForetellsMegabytes(Patient):
    """Counts megabytes as bytes."""

    def _estimate(self, rows, dim, itemsize):
        found = super()._estimate(rows, dim, itemsize)
        return dataclasses.replace(found, disk=found.disk * 2**20)


@wrong("test_what_is_foretold", r"bytes of memory \(least\)")
class ForetellsTooMuch(Patient):
    """Takes a table of all pairs for certain that is never made."""

    def _estimate(self, rows, dim, itemsize):
        return dataclasses.replace(super()._estimate(rows, dim, itemsize), least=8e6 * rows**2)


@wrong("test_what_is_foretold", "_row_work gave")
class WorksBackwards(Patient):
    """Saves time by every row."""

    def _row_work(self, dim):
        return -float(dim)
