from __future__ import annotations

from typing import Any, ClassVar

from vwkit_flann import Flann

from vwkit.testing import IndexTests


class TestKDTree(IndexTests):
    backend = Flann
    min_recall = 0.95


class TestKMeans(IndexTests):
    backend = Flann
    params: ClassVar[dict[str, Any]] = {"algorithm": "kmeans", "branching": 8}
    min_recall = 0.95


class TestComposite(IndexTests):
    backend = Flann
    params: ClassVar[dict[str, Any]] = {"algorithm": "composite", "trees": 2, "checks": 600}
    min_recall = 0.95


class TestLinear(IndexTests):
    backend = Flann
    params: ClassVar[dict[str, Any]] = {"algorithm": "linear"}
