"""Outputs that are artifacts: a vocabulary, an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vwkit.around import Output
from vwkit.base import backend

__all__ = ["IndexOutput", "VocabularyOutput"]


@backend("vocabulary")
class VocabularyOutput(Output):
    """The visual words as a folder that `vwkit.load` opens: a quantizer with encode and decode."""

    needs = ("vocabulary",)
    writes = "artifact"

    def _write(self, run: Any, path: Path) -> None:
        run.vocabulary.save(path)


@backend("index")
class IndexOutput(Output):
    """The search index as a folder that `vwkit.load` opens."""

    needs = ("index",)
    writes = "artifact"

    def _write(self, run: Any, path: Path) -> None:
        run.index.save(path)
