"""Rows of many kinds, and every way to join them, which the tests of the clusterer share."""

from __future__ import annotations

import numpy as np
from hypothesis import settings

import vwkit
from vwkit.reference.agglomerative import LINKAGES

OF_MEANS = ("ward", "centroid", "median")
WAYS = [(linkage, "euclidean") for linkage in LINKAGES]
WAYS += [(linkage, "cosine") for linkage in LINKAGES if linkage not in OF_MEANS]
METHODS = ("table", "lists")
examples = settings(deadline=None, max_examples=60)
KINDS = ("noise", "groups", "repeated", "walk", "spread", "zeros", "grid")


def made(**params):
    return vwkit.create("clusterer", "agglomerative", **params)


def rows(seed, n, dim=4, kind="noise"):
    rng = np.random.default_rng(seed)
    if kind == "groups":
        found = rng.normal(size=(5, dim))[rng.integers(0, 5, n)] + rng.normal(0, 0.01, (n, dim))
    elif kind == "repeated":
        found = rng.normal(size=(n // 3 + 1, dim))[rng.integers(0, n // 3 + 1, n)]
    elif kind == "walk":
        found = np.cumsum(rng.normal(size=(n, dim)), axis=0)
    elif kind == "spread":
        found = np.exp(rng.normal(0, 4, (n, dim)))
    elif kind == "zeros":
        found = rng.normal(size=(n, dim))
        found[rng.random(n) < 0.2] = 0
    elif kind == "grid":
        found = rng.integers(0, 4, (n, dim))
    else:
        found = rng.normal(size=(n, dim))
    return np.ascontiguousarray(found, np.float32)
