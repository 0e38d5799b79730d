"""The roles around the data path: outputs, evaluators, rerankers, apps, executors.

They are backends like all others (fields, schema, errors, hook), but see a whole run.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vwkit.base import Backend, Field
from vwkit.types import Positive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vwkit.jobs import Chunks, Job, Kernel
    from vwkit.types import Features, Matches

__all__ = ["App", "Evaluator", "Executor", "Output", "Reranker"]


class Output(Backend):
    """Turns a finished run into files. An author writes `_write`."""

    role: ClassVar[str] = "output"
    #: Slots of the spec without which there is nothing to write.
    needs: ClassVar[tuple[str, ...]] = ()
    #: ``file``, ``folder`` (with our marker) or ``artifact``: what may stand in its place already.
    writes: ClassVar[str] = "file"
    #: Whether it needs what was said of each single row; if not, equal pixels are only counted.
    every_row: ClassVar[bool] = True

    path: Path

    def _needs_fit(self) -> bool:
        return False

    def write(self, run: Any) -> Path:
        """Write a finished run's files to `path`, all or nothing, and return it.

        Raises
        ------
        RunError
            Something that is not ours is in the way, or it cannot be written.
        UnsupportedError
            The run has not what it takes, such as clusters.
        """
        self._write(run, self.path)
        return self.path

    def _rows(self, run: Any) -> tuple[str, int] | None:
        """Return what the files hold one of for each row of the run, and how many: ("words", 1200).

        None where they hold no rows. Then `_rows_written` is compared with it.
        """
        return None

    def _rows_written(self, path: Path) -> int | None:
        """Return how many rows the files at `path` hold, counted there; None where they hold none."""
        return None

    def _objection(self, spec: Any) -> str | None:
        """Say why a spec, whose slots are checked, gives nothing that this output can write."""
        return None

    def _write(self, run: Any, path: Path) -> None:
        """Write the files to `path`, all or nothing; what was there is replaced if it is ours."""
        raise NotImplementedError(f"{type(self).__name__} must define _write")


class Evaluator(Backend):
    """Scores a run. An author writes `_evaluate`."""

    role: ClassVar[str] = "evaluator"

    def _needs_fit(self) -> bool:
        return False

    def _evaluate(self, run: Any) -> dict[str, Any]:
        """Return plain data: the scores' names and numbers; ``mAP`` among them, in 0…1."""
        raise NotImplementedError(f"{type(self).__name__} must define _evaluate")


class App(Backend):
    """Shows a finished run to people for as long as they want. An author writes `_serve`."""

    role: ClassVar[str] = "app"

    def _needs_fit(self) -> bool:
        return False

    def _serve(self, run: Any, ready: Callable[[str], None]) -> None:
        """Serve the run until the current job is asked to stop (``job().stop``), then return.

        Parameters
        ----------
        run : Run
        ready : callable
            Called once with the URL, as soon as that answers.

        Raises
        ------
        RunError
            It cannot begin: the address is in use, say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _serve")


class Executor(Backend):
    """Computes the chunks of a run: here, or on other machines. An author writes `_map`."""

    role: ClassVar[str] = "executor"
    #: Whether chunks are computed in other processes; what they need is pickled then.
    distributed: ClassVar[bool] = False

    def _needs_fit(self) -> bool:
        return False

    def _begin(self, job: Job) -> None:
        """Get ready for a run with the budgets of a job: begin workers, connect.

        Raises
        ------
        RunError
            It cannot begin: nobody answers at the address, say.
        """

    def _end(self) -> None:
        """Let go of everything; called once after `_begin`, however the run ended."""

    def _map(self, kernel: Kernel, chunks: Chunks, arrays: Mapping[str, Any]) -> Iterator[Any]:
        """Yield ``kernel(*chunk, **arrays)`` for each chunk, in order.

        Parameters
        ----------
        kernel : callable
            A module-level function.
        chunks : Chunks
            Tuples of arrays, to iterate over; or `reader` and `spans`, to have rows read where they
            are computed. With ``chunks.combine`` results may be added up before they are yielded.
        arrays : dict
            The same for each call, such as the centers.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _map")

    def map(self, kernel: Kernel, chunks: Any, arrays: Mapping[str, Any]) -> Iterator[Any]:
        """Yield ``kernel(*chunk, **arrays)`` for each chunk, in order; see `vwkit.Job.map`."""
        return self._map(kernel, chunks, arrays)

    @contextlib.contextmanager
    def ready(self, job: Job) -> Iterator[None]:
        """Be ready for work within a ``with`` block."""
        self._begin(job)
        try:
            yield
        finally:
            self._end()


class Reranker(Backend):
    """Orders the first matches anew. An author writes `_rerank`."""

    role: ClassVar[str] = "reranker"
    #: Slots of the spec without which there is nothing to compare.
    needs: ClassVar[tuple[str, ...]] = ()

    top: Positive = Field(
        default=200, doc="How many of the first matches are looked at; those behind stay there."
    )

    def _needs_fit(self) -> bool:
        return False

    def _rerank(
        self, query: Features, matches: Matches, features: Callable[[int], Features]
    ) -> Matches:
        """Return the matches of one query, ids (1, k), in a better order.

        Parameters
        ----------
        query : Features
            The query's local features.
        matches : Matches
            Rows of items and distances, nearest first; at least `top`, where there are so many.
            -1 where there is none. Distances are handed on with their items.
        features : callable
            Gives the local features of an item by its row.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _rerank")
