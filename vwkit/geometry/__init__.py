"""Comparing two pictures by the geometry of their local features.

>>> import numpy as np, vwkit
>>> from vwkit import geometry
>>> rng = np.random.default_rng(0)
>>> points = np.column_stack([rng.uniform(0, 99, (50, 2)), np.full(50, 9.0), np.zeros((50, 2))])
>>> picture = vwkit.Features(rng.integers(0, 255, (50, 32)).astype(np.uint8), points, (100, 100))
>>> moved = points * [0.5, 0.5, 0.5, 1, 1]
>>> small = vwkit.Features(picture.vectors, moved, (50, 50))
>>> geometry.compare(picture, small).words
'scaled 0.5×'
"""

from __future__ import annotations

from vwkit.geometry.comparing import align, align_many, compare
from vwkit.geometry.fitting import Model, apply, estimate
from vwkit.geometry.matching import match_descriptors
from vwkit.geometry.transformation import Transformation

__all__ = [
    "Model",
    "Transformation",
    "align",
    "align_many",
    "apply",
    "compare",
    "estimate",
    "match_descriptors",
]
