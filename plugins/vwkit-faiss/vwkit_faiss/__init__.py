"""FAISS for vwkit: indexes by factory string, k-means, and quantizers."""

from __future__ import annotations

from typing import Any

import vwkit
from vwkit_faiss.additive import RQ
from vwkit_faiss.index import Faiss
from vwkit_faiss.kmeans import FaissKMeans
from vwkit_faiss.product import OPQ, FaissPQ
from vwkit_faiss.scalar import SQ
from vwkit_faiss.superkmeans import FaissSuperKMeans

__all__ = [
    "OPQ",
    "RQ",
    "SQ",
    "Faiss",
    "FaissKMeans",
    "FaissPQ",
    "FaissSuperKMeans",
    "vwkit_backends",
]


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring all of them."""
    return [Faiss, FaissKMeans, FaissSuperKMeans, OPQ, FaissPQ, RQ, SQ]
