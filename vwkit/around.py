"""The roles around the data path: outputs, evaluators, rerankers, apps.

They are backends like all others (fields, schema, errors, hook), but see a whole run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vwkit.base import Backend, Field
from vwkit.types import Positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from vwkit.types import Features, Matches

__all__ = ["App", "Evaluator", "Output", "Reranker"]


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
