from __future__ import annotations

from typing import Any, ClassVar

from vwkit_annoy import Annoy

from vwkit.testing import IndexTests


class TestAnnoy(IndexTests):
    backend = Annoy
    min_recall = 0.95


class TestOneThread(IndexTests):
    backend = Annoy
    params: ClassVar[dict[str, Any]] = {"n_jobs": 1, "n_trees": 20, "search_k": 600}
    min_recall = 0.9
