"""What pytest loads by itself where vwkit is installed: readable assertions and one marker.

It runs in every test session of every project around, so it imports nothing but pytest.
"""

from __future__ import annotations

import pytest

# The suite's assertions explain themselves like those of a test module.
pytest.register_assert_rewrite(
    "vwkit.testing.clusterer",
    "vwkit.testing.featurizer",
    "vwkit.testing.index",
    "vwkit.testing.quantizer",
    "vwkit.testing.suite",
    "vwkit.testing.transform",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that ``--strict-markers`` passes."""
    config.addinivalue_line(
        "markers",
        "conformance: a test of vwkit's conformance suite; -m 'not conformance' leaves it out",
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of the suite."""
    if getattr(getattr(item, "cls", None), "_suite_tests", None):
        item.add_marker("conformance")
