from __future__ import annotations

from typing import Any, ClassVar

from vwkit_numba import GraphKMeans

from vwkit.testing import ClustererTests


class TestGraphKMeans(ClustererTests):
    backend = GraphKMeans


class TestFewNeighbours(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"neighbours": 4}


class TestWithoutRelocation(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"relocate": 0.0}


class TestSpherical(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"spherical": True}
