"""The slow, obvious answer to every role: float64 NumPy that can be checked by reading it.

Every property test compares a backend with these functions, so they favour plainness over speed:
loops over queries, clusters and subspaces, no float32, no shortcuts such as ‖q‖² - 2q·x + ‖x‖².
They import NumPy and nothing heavier. The modules are the namespaces: ``lloyd.assign`` and
``pqkmeans.assign`` are different things.

>>> from vwkit.reference import search
>>> search.search([[0.0, 0.0]], [[3.0, 4.0], [1.0, 0.0]], k=3, metric="l2")[0]
array([[ 1,  0, -1]])
"""

from __future__ import annotations

from vwkit.reference import (
    agglomerative,
    average_precision,
    bag_of_words,
    distances,
    geometry,
    lloyd,
    pixels,
    pq,
    pqkmeans,
    search,
    transforms,
    vlad,
)

__all__ = [
    "agglomerative",
    "average_precision",
    "bag_of_words",
    "distances",
    "geometry",
    "lloyd",
    "pixels",
    "pq",
    "pqkmeans",
    "search",
    "transforms",
    "vlad",
]
