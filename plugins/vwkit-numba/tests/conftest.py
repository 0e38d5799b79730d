"""Tests of this folder share helpers: ``from graph_fits import …``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tree's samples, batches and kept arrays be so small that all ways are gone."""
    from vwkit_numba import room, tree_fitting, tree_splitting

    monkeypatch.setattr(tree_fitting, "_SAMPLE", 40)
    monkeypatch.setattr(tree_fitting, "_PER_CHILD", 8)
    monkeypatch.setattr(tree_splitting, "_BATCH_BYTES", 512)
    monkeypatch.setattr(room, "_MAPPED", 1 << 10)
