"""What pytest loads by itself where vwkit is installed: one marker, and what to check.

It runs in every test session of every project around, so it imports nothing but pytest.
"""

from __future__ import annotations

from collections.abc import Generator

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say below a failure what to check: the last paragraph of the test's docstring."""
    report = yield
    if report.failed and item.get_closest_marker("conformance"):
        doc = getattr(getattr(item, "function", None), "__doc__", None) or ""
        check = " ".join(doc.strip().rpartition("\n\n")[2].split())
        if check.startswith("If this fails"):
            report.sections.append(("vwkit", check))
    return report
