"""What pytest loads by itself where vwkit is installed: one marker, and what to check.

It runs in every test session of every project around, so it imports nothing but pytest.
"""

from __future__ import annotations

import pytest


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
