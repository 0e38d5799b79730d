"""Clustering at large k for vwkit, in kernels that numba compiles."""

from __future__ import annotations

from typing import Any

import vwkit
from vwkit_numba.graph_kmeans import GraphKMeans

__all__ = ["GraphKMeans", "vwkit_backends"]


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `graph-kmeans`."""
    return [GraphKMeans]
