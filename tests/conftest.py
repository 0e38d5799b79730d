"""Shared by all tests: hypothesis profiles, and a cache of its own for every test."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Sizes are small, so examples are cheap; the first call of a library may be slow.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=25, **_COMMON)
settings.register_profile("ci", max_examples=50, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=500, **_COMMON)
settings.load_profile(os.environ.get("VWKIT_HYPOTHESIS", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
