from __future__ import annotations

from typing import Any, ClassVar

from vwkit_numba import GraphKMeans, GraphPQKMeans

from vwkit.testing import ClustererTests


class TestGraphKMeans(ClustererTests):
    backend = GraphKMeans


class TestFewNeighbours(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"neighbours": 8}


class TestWithoutRelocation(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"relocate": 0.0}


class TestSpherical(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"spherical": True}


class TestGraphPQKMeans(ClustererTests):
    backend = GraphPQKMeans


class TestFewNeighboursOfCodes(ClustererTests):
    backend = GraphPQKMeans
    params: ClassVar[dict[str, Any]] = {"neighbours": 8, "relocate": 0.0}


class TestFoldedAndExact(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"fold": True, "finish": "exact"}


class TestFoldedCodes(ClustererTests):
    backend = GraphPQKMeans
    params: ClassVar[dict[str, Any]] = {"fold": True, "finish": "exact"}
