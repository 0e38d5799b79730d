"""The conformance suite: a backend passes by subclassing the tests of its role.

    from vwkit.testing import IndexTests

    class TestKDTree(IndexTests):
        backend = KDTreeIndex
        params = {"leaf_size": 4}

It is a product of its own (``pip install "vwkit[testing]"``): nothing else in vwkit imports pytest
or hypothesis. Names are loaded when they are first used, because pytest imports this package in
every run of every project that has vwkit installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vwkit.plugins import registered as registered
    from vwkit.testing import strategies as strategies
    from vwkit.testing.clusterer import ClustererTests as ClustererTests
    from vwkit.testing.featurizer import FeaturizerTests as FeaturizerTests
    from vwkit.testing.index import IndexTests as IndexTests
    from vwkit.testing.quantizer import QuantizerTests as QuantizerTests
    from vwkit.testing.transform import TransformTests as TransformTests

_HOMES = {
    "ClustererTests": "vwkit.testing.clusterer",
    "FeaturizerTests": "vwkit.testing.featurizer",
    "IndexTests": "vwkit.testing.index",
    "QuantizerTests": "vwkit.testing.quantizer",
    "TransformTests": "vwkit.testing.transform",
    "registered": "vwkit.plugins",
}

__all__ = [
    "ClustererTests",
    "FeaturizerTests",
    "IndexTests",
    "QuantizerTests",
    "TransformTests",
    "registered",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":
        return importlib.import_module("vwkit.testing.strategies")
    if name not in _HOMES:
        raise AttributeError(f"module 'vwkit.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
