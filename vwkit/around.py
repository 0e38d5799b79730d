"""The roles around the data path: outputs, evaluators, rerankers.

They are backends like all others (fields, schema, errors, hook), but see a whole run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vwkit.base import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from vwkit.types import Features, Matches

__all__ = ["Evaluator", "Output", "Reranker"]


class Output(Backend):
    """Turns a finished run into files. An author writes `_write`."""

    role: ClassVar[str] = "output"
    #: Slots of the spec without which there is nothing to write.
    needs: ClassVar[tuple[str, ...]] = ()
    #: ``file``, ``folder`` (with our marker) or ``artifact``: what may stand in its place already.
    writes: ClassVar[str] = "file"

    path: Path

    def _needs_fit(self) -> bool:
        return False

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


class Reranker(Backend):
    """Orders the first matches anew. An author writes `_rerank`."""

    role: ClassVar[str] = "reranker"

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
            Rows of items and distances, nearest first.
        features : callable
            Gives the local features of an item by its row.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _rerank")
