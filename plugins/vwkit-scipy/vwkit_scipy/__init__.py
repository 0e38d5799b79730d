"""Hierarchical clustering for vwkit."""

from __future__ import annotations

from typing import Any

import vwkit
from vwkit_scipy.agglomerative import Agglomerative

__all__ = ["Agglomerative", "vwkit_backends"]


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring the clusterer."""
    return [Agglomerative]
