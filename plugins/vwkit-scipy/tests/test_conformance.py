from __future__ import annotations

from typing import Any, ClassVar

from vwkit_scipy import Agglomerative

from vwkit.testing import ClustererTests


class TestAgglomerative(ClustererTests):
    backend = Agglomerative


class TestSingle(ClustererTests):
    backend = Agglomerative
    params: ClassVar[dict[str, Any]] = {"linkage": "single", "similarity": 0.8, "min_size": 1}


class TestCosine(ClustererTests):
    backend = Agglomerative
    params: ClassVar[dict[str, Any]] = {"distance": "cosine", "linkage": "complete", "clusters": 5}


class TestWard(ClustererTests):
    backend = Agglomerative
    params: ClassVar[dict[str, Any]] = {"linkage": "ward", "height": 300.0}


class TestCentroid(ClustererTests):
    backend = Agglomerative
    params: ClassVar[dict[str, Any]] = {"linkage": "centroid", "scale": "root"}
