"""Clustering at large k for vwkit, in kernels that numba compiles."""

from __future__ import annotations

from typing import Any

import vwkit
from vwkit_numba.fast_opq import FastOPQ
from vwkit_numba.fast_pq import FastPQ
from vwkit_numba.graph_kmeans import GraphKMeans
from vwkit_numba.graph_pqkmeans import GraphPQKMeans
from vwkit_numba.tree import VocabularyTree

__all__ = [
    "FastOPQ",
    "FastPQ",
    "GraphKMeans",
    "GraphPQKMeans",
    "VocabularyTree",
    "vwkit_backends",
]


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `fast-pq`, `fast-opq`, `graph-kmeans`, `graph-pqkmeans` and `tree`."""
    return [FastPQ, FastOPQ, GraphKMeans, GraphPQKMeans, VocabularyTree]
